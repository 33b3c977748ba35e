"""The command ``import-marian``: arguments in, a bundle or a refusal out.

Knows: arguments and messages. Does not know: how a checkpoint is read or a bundle made.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from export.cli import (
    CALIBRATION_LINES,
    EXIT_BAD_BUNDLE,
    EXIT_FAILED,
    add_reading,
    complain,
    disk_error,
    read_sample,
    report,
    texts_for_scales,
)
from export.huggingface.folder import ImportRefused
from export.huggingface.importer import Checkpoint, read_checkpoint
from export.verify import VerificationError
from export.write_bundle import DEFAULT_PRECISIONS, PRECISIONS, ExportError, ExportOptions, write_bundle
from model.checkpoint import Description

GOLDEN_LINES = 24  # tried, until four of them are clear


def add_import_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "import-marian",
        help="make a bundle of an OPUS-MT (Marian), M2M-100 or NLLB-200 checkpoint",
        description="Makes a bundle of a folder in Hugging Face's layout: config.json, model.safetensors or "
        "pytorch_model.bin, source.spm, target.spm and vocab.json (M2M-100, NLLB-200: sentencepiece.bpe.model), "
        "generation_config.json. What cannot be imported exactly is refused.",
    )
    parser.add_argument("folder", type=Path, metavar="HF_DIR", help="the checkpoint's folder")
    parser.add_argument("bundle", type=Path, help="the bundle's folder; replaced if it is a bundle already")
    parser.add_argument("--name", help="what clients call the model (default: SOURCE-TARGET)")
    parser.add_argument("--model-version", default="1", help="which version of that model this is (default: 1)")
    for side in ("source", "target"):
        parser.add_argument(
            f"--{side}-language", action="append", default=[], metavar="CODE",
            help=f"{side} language to serve, BCP-47; may be given several times (default: all the checkpoint names)",
        )  # fmt: skip
        parser.add_argument(
            f"--max-{side}-tokens", type=int, default=0, metavar="N",
            help=f"longest {side} sentence, end token counted (default: what the checkpoint allows)",
        )  # fmt: skip
    parser.add_argument(
        "--precision", action="append", choices=list(PRECISIONS),
        help="graphs to make; may be given several times (default: cpu-int8 and cpu-fp32)",
    )  # fmt: skip
    parser.add_argument(
        "--calibration", type=Path, action="append", default=[], metavar="FILE",
        help="source sentences, a line each, to fix the int8 scales on and to choose golden translations from; may be "
        "given several times (default: texts drawn from the vocabulary's probabilities, and no golden translations)",
    )  # fmt: skip
    add_reading(parser)
    parser.set_defaults(run=run_import)


def export_options(arguments: argparse.Namespace, checkpoint: Checkpoint, texts: list[str]) -> ExportOptions:
    sources, targets = checkpoint.sources, checkpoint.targets
    limit = checkpoint.model.config.max_positions
    precisions = tuple(dict.fromkeys(arguments.precision or DEFAULT_PRECISIONS))
    decoding = replace(
        checkpoint.decoding, lowers_capitals=arguments.lower_capitals, plain_quotes=arguments.plain_quotes
    )
    targets_name = targets[0].code if len(targets) == 1 else "mul"
    return ExportOptions(
        name=arguments.name or f"{sources[0].code if len(sources) == 1 else 'mul'}-{targets_name}",
        version=arguments.model_version,
        precisions=precisions,
        max_source_tokens=arguments.max_source_tokens or limit,
        max_target_tokens=arguments.max_target_tokens or checkpoint.decoding.max_length or limit,
        calibration_texts=texts_for_scales(texts, checkpoint.tokenizer, precisions),
        golden_texts=tuple(texts[:: max(1, len(texts) // GOLDEN_LINES)][:GOLDEN_LINES]),
        card={"imported_from": arguments.folder.resolve().name, "proposed": dict(checkpoint.proposed)},
        source_languages=sources if checkpoint.has_choice[0] else (),
        target_languages=targets if checkpoint.has_choice[1] else (),
        decoding=decoding,
    )


def run_import(arguments: argparse.Namespace) -> int:
    try:
        texts = read_sample(arguments.calibration, CALIBRATION_LINES)
        try:
            checkpoint = read_checkpoint(arguments.folder, arguments.source_language, arguments.target_language)
        except (ImportRefused, OSError) as error:
            return complain(str(error), EXIT_BAD_BUNDLE)
        codes = (checkpoint.sources[0].code, checkpoint.targets[0].code)
        description = Description(checkpoint.model.config, *codes, step=0)
        options = export_options(arguments, checkpoint, texts)
        reports = write_bundle(checkpoint.model, checkpoint.tokenizer, description, arguments.bundle, options)
    except (ExportError, VerificationError) as error:
        return complain(str(error), EXIT_FAILED)
    except OSError as error:  # of what is written: what is read was read above
        return complain(disk_error(error), EXIT_FAILED)
    report(arguments.bundle, reports, len(options.golden_texts))
    beams, penalty = checkpoint.proposed["num_beams"], checkpoint.proposed["length_penalty"]
    print(f"the checkpoint proposes --beam {beams} --length-penalty {penalty:g}; requests choose")
    if checkpoint.left_out:
        print(f"left out, since BCP-47 has no such codes: {', '.join(checkpoint.left_out)}")
    print(f"wrote {arguments.bundle}: {languages(checkpoint)}")
    return 0


def languages(checkpoint: Checkpoint) -> str:
    return " to ".join(
        ", ".join(language.code for language in side) for side in (checkpoint.sources, checkpoint.targets)
    )
