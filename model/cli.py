"""``dragoman train`` and ``dragoman average``.

Knows: their options, what they print and their exit codes. Does not know: how training works.

PyTorch is imported when a command runs, not before: `dragoman --help` is quick, and works without the extra ``train``.
"""

import argparse
import dataclasses
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.config import TrainingConfig
from model.recipe import read_training_config
from model.sections import TrainingConfigError
from service.runtime.folder_kind import hint

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subparsers = Any

EXIT_DONE, EXIT_FAILED, EXIT_CONFIGURATION, EXIT_INTERRUPTED = 0, 1, 78, 130
SIGNALLED = 128


def add_train_command(subparsers: Subparsers) -> None:
    """Adds ``train``; its ``run`` attribute takes the parsed options and returns the exit code."""
    parser = subparsers.add_parser(
        "train",
        help="train a model as a TOML file describes it; the same command goes on where it was stopped",
        description="Trains a Transformer. Ctrl-C and SIGTERM finish the step, save, and exit with 130 and 143; the "
        "same command goes on from there.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="the run: corpora, model, optimizer")
    parser.add_argument("--folder", help="where checkpoints and logs go, instead of the file's run.folder")
    parser.add_argument(
        "--initial-checkpoint",
        metavar="CHECKPOINT",
        help="weights and vocabulary to begin with, instead of the file's run.initial_checkpoint: fine-tuning",
    )
    parser.add_argument("--max-steps", type=int, metavar="N", help="steps in all, instead of the file's run.max_steps")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print what would be done, do some steps on random tokens for memory and time, and stop",
    )
    parser.set_defaults(run=train)


def add_average_command(subparsers: Subparsers) -> None:
    """Adds ``average``; its ``run`` attribute takes the parsed options and returns the exit code."""
    parser = subparsers.add_parser(
        "average",
        help="average the last checkpoints of a run, or of several, into one",
        description="Writes a checkpoint whose weights are the mean of the last validated checkpoints of a run, or of "
        "runs of which each went on from the one before. Others have nothing in common to take the mean of.",
    )
    about = "a run: it holds step-* folders; named twice, it counts twice"
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN_FOLDER", help=about)
    parser.add_argument("out", type=Path, metavar="OUT", help="the checkpoint to write; it must not exist")
    parser.add_argument(
        "--last", type=int, default=4, metavar="N", help="how many of each, the newest first (default: 4)"
    )
    parser.set_defaults(run=average)


def train(options: argparse.Namespace) -> int:
    from model.checkpoint import CheckpointError, CheckpointWriteError
    from model.corpus import CorpusError
    from model.plan import plan
    from model.train import Trainer, TrainingError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # translations are shown, whatever the terminal can show
    try:
        config = with_flags(read_training_config(options.config), options)
        if options.dry_run:
            for line in plan(config):
                print(line)
            return EXIT_DONE
        trainer = Trainer(config)
        trainer.train()
        trainer.processes.close()
        if trainer.is_stopped:
            return SIGNALLED + trainer.signal if trainer.signal else EXIT_INTERRUPTED
    except (TrainingConfigError, CorpusError, CheckpointError) as error:
        print(f"dragoman train: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except (TrainingError, CheckpointWriteError, OSError) as error:
        print(f"dragoman train: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("dragoman train: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_DONE


def with_flags(config: TrainingConfig, options: argparse.Namespace) -> TrainingConfig:
    """Raises TrainingConfigError: a flag's value is out of range."""
    given = {name: getattr(options, name) for name in ("folder", "initial_checkpoint", "max_steps")}
    changes = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(config, run=dataclasses.replace(config.run, **changes))


def average(options: argparse.Namespace) -> int:
    from model import checkpoint

    try:
        folders: list[Path] = []
        for run in options.folders:
            if not run.is_dir():
                raise checkpoint.CheckpointError(f"there is no folder {run}")
            found = checkpoint.steps(run)
            if not 1 <= options.last <= len(found):
                raise checkpoint.CheckpointError(
                    f"--last {options.last}: {run} has {len(found)} checkpoints{hint(run, 'run')}"
                )
            folders += found[-options.last :]
        if options.out.exists():
            raise checkpoint.CheckpointError(f"{options.out} exists already")
        described = [checkpoint.load_model(folder)[1:] for folder in folders]
        if len({tokenizer.sha256 for tokenizer, _ in described}) > 1:
            raise checkpoint.CheckpointError("the checkpoints do not have the same vocabulary")
        checkpoint.save(options.out, checkpoint.average(folders), *described[-1], None)
    except checkpoint.CheckpointError as error:
        print(f"dragoman average: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except checkpoint.CheckpointWriteError as error:
        print(f"dragoman average: {error}", file=sys.stderr)
        return EXIT_FAILED
    names = [folder.name if len(options.folders) == 1 else str(folder) for folder in folders]
    print(f"{options.out}: mean of {', '.join(names)}")
    return EXIT_DONE
