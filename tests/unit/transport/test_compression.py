"""Large answers come compressed where the client takes it, small ones and those of other clients as they are."""

import gzip
from collections.abc import Sequence

import grpc
import pytest

from service.pb import translation_pb2 as pb
from tests.unit.transport.running_server import Running, request, with_server

SERVICE = "/dragoman.v1.TranslationService"
GZIP = b"\x1f\x8b"
# The client shows bytes as they came. ONLY_IDENTITY: and says that it takes no compression at all.
AS_IT_CAME = (("grpc.per_message_decompression", 0), ("grpc.use_local_subchannel_pool", 1))
ONLY_IDENTITY = (*AS_IT_CAME, ("grpc.compression_enabled_algorithms_bitset", 1))
LONG, SHORT = "a long text " * 1000, "a"


async def answer(server: Running, options: Sequence[tuple[str, int]], *texts: str) -> bytes:
    async with grpc.aio.insecure_channel(server.address, options=options) as channel:
        call = channel.unary_unary(f"{SERVICE}/Translate", pb.TranslateRequest.SerializeToString)
        return bytes(await call(request(*texts), timeout=5))


@pytest.mark.parametrize("text", [SHORT, LONG])
@pytest.mark.parametrize("options", [AS_IT_CAME, ONLY_IDENTITY])
def test_large_answers_are_compressed_for_those_who_take_it(text: str, options: Sequence[tuple[str, int]]):
    async def check(server: Running) -> None:
        payload = await answer(server, options, text)
        assert payload.startswith(GZIP) is (text == LONG and options == AS_IT_CAME)
        if payload.startswith(GZIP):
            packed, payload = payload, gzip.decompress(payload)
            assert len(packed) < len(payload) / 2
        assert pb.TranslateResponse.FromString(payload).results[0].translation.text == text.upper()

    with_server(check)


def test_each_answer_of_a_stream_for_itself():
    async def check(server: Running) -> None:
        async with grpc.aio.insecure_channel(server.address, options=AS_IT_CAME) as channel:
            call = channel.stream_stream(f"{SERVICE}/TranslateStream", pb.TranslateStreamRequest.SerializeToString)()
            config = pb.StreamConfig(source_language="en", target_language="fr")
            await call.write(pb.TranslateStreamRequest(config=config))
            for text in (SHORT, LONG, SHORT, LONG):
                await call.write(pb.TranslateStreamRequest(text=pb.StreamText(id="1", text=text)))
                assert (await call.read()).startswith(GZIP) is (text == LONG)
            await call.done_writing()

    with_server(check)


@pytest.mark.parametrize(("from_bytes", "is_compressed"), [(0, False), (30, True), (100_000, False)])
def test_the_size_is_a_setting(from_bytes: int, is_compressed: bool):
    async def check(server: Running) -> None:
        assert (await answer(server, AS_IT_CAME, LONG)).startswith(GZIP) is is_compressed

    with_server(check, compress_from_bytes=from_bytes)


def test_a_compressed_request_is_read_whatever_comes_back():
    async def check(server: Running) -> None:
        for text in (SHORT, LONG):
            for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
                found = await server.stub.Translate(request(text), compression=compression, timeout=5)
                assert found.results[0].translation.text == text.upper()

    with_server(check)
