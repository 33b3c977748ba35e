"""service/pb is what proto/ says now. Compared as descriptors, which do not depend on the generator's version."""

from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from service.pb import translation_pb2, translation_pb2_grpc

ROOT = Path(__file__).parents[2]


def described_by_proto(folder: Path) -> descriptor_pb2.FileDescriptorProto:
    out = folder / "descriptors.bin"
    arguments = ["protoc", f"-Iservice/pb={ROOT / 'proto/dragoman/v1'}", f"--descriptor_set_out={out}"]
    assert protoc.main([*arguments, "service/pb/translation.proto"]) == 0
    [file] = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    return file


def test_generated_code_is_current(tmp_path: Path):
    committed = descriptor_pb2.FileDescriptorProto()
    translation_pb2.DESCRIPTOR.CopyToProto(committed)
    expected = described_by_proto(tmp_path)
    assert without_json_names(committed) == without_json_names(expected), "run `make proto`"
    methods = {method.name for method in expected.service[0].method}
    assert methods <= set(dir(translation_pb2_grpc.TranslationServiceServicer))
    types = (ROOT / "service/pb/translation_pb2.pyi").read_text()
    assert all(f"class {message.name}(" in types for message in expected.message_type)


def without_json_names(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    for message in file.message_type:
        for field in message.field:
            field.ClearField("json_name")
    return file


def test_every_element_is_explained():
    """A comment above every service, method, message, field, enum and value."""
    lines = (ROOT / "proto/dragoman/v1/translation.proto").read_text().splitlines()
    starts = ("service ", "rpc ", "message ", "enum ", "oneof ", "optional ", "repeated ")
    for number, line in enumerate(lines):
        text = line.strip()
        is_element = text.startswith(starts) or (" = " in text and text.endswith(";") and not text.startswith("syntax"))
        if is_element and not text.startswith("//"):
            assert lines[number - 1].strip().startswith("//"), f"line {number + 1} has no comment: {text}"
