"""The `dragoman` command: finds the command that is meant, runs it, and turns errors into exit codes.

Knows: names of commands. Does not know: what they do. Commands that need more packages than serving does are imported
only when they are asked for, so that `dragoman --help` and `dragoman serve` work without those packages. All of them
are imported inside main(), so that Ctrl-C ends even the start without a traceback.
"""

import argparse
import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from service.commands.exit_codes import CONFIGURATION, FAILED, INTERRUPTED
from service.commands.standard_streams import hold_closed, leave_unwritten
from service.errors import BundleError, ConfigurationError, DragomanError

Subparsers = Any  # argparse._SubParsersAction, which argparse does not publish
_OWN_PACKAGES = ("service", "model", "export")


@dataclass(frozen=True, slots=True)
class LaterCommand:
    """A command that is imported when it is asked for: ``module.add(subparsers)`` adds it."""

    module: str
    add: str
    extra: str
    help: str


LATER_COMMANDS = {
    "train": LaterCommand("model.cli", "add_train_command", "train", "train a model as a TOML file describes it"),
    "average": LaterCommand("model.cli", "add_average_command", "train", "average the last checkpoints of a run"),
    "export": LaterCommand("export.cli", "add_commands", "export", "make a bundle from a checkpoint"),
    "export-transformers": LaterCommand(
        "export.cli", "add_commands", "export", "write a checkpoint as a folder that Transformers loads"
    ),
    "import-marian": LaterCommand(
        "export.huggingface.cli", "add_import_command", "export", "make a bundle of an OPUS-MT or M2M-100 checkpoint"
    ),
    "align": LaterCommand(
        "export.align", "add_align_command", "export", "show what each word of a translation looked at"
    ),
    "derive-cuda": LaterCommand(
        "export.cli", "add_commands", "export", "add graphs for CUDA to a bundle, made of its int8 weights"
    ),
}

# What asking whether a file is there can come to, whichever file it is.
_OF_PATHS = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EROFS, errno.ESTALE)

EXTRAS = {name: later.extra for name, later in LATER_COMMANDS.items()} | {"evaluate": "train", "verify": "export"}
"""What must be installed with a command where one of its packages is missing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `dragoman`; returns the exit code. argparse itself exits with 2 on wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = next((word for word in given if not word.startswith("-")), "")
    # Before gRPC is imported. Its own lines are no JSON, and whoever reaches a port can make it write them.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    hold_closed()
    try:
        with _left_by_interrupt():
            parser = build_parser(command)
        options = parser.parse_args(given)
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except (ConfigurationError, BundleError) as error:
        return _fail(command, str(error), CONFIGURATION)
    except DragomanError as error:
        return _fail(command, str(error), FAILED)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OWN_PACKAGES:
            raise
        if command not in EXTRAS:
            raise
        needed = f"`dragoman {command}` needs more packages: pip install 'dragoman[{EXTRAS[command]}]'"
        return _fail("", needed, CONFIGURATION)
    except BrokenPipeError:
        leave_unwritten()  # whoever read our output has gone
        return FAILED
    except OSError as error:
        if _is_of_output(error):
            return _fail(command, f"output cannot be written: {error.strerror}", FAILED)
        if error.filename is None or error.errno not in _OF_PATHS:
            raise
        return _fail(command, f"{os.fsdecode(error.filename)}: {error.strerror}", FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED


@contextmanager
def _left_by_interrupt() -> Iterator[None]:
    """Ctrl-C ends the process at once: packages that are imported may swallow it, or raise ImportError of it."""
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    is_ours = is_ours and threading.current_thread() is threading.main_thread()
    if is_ours:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_of_output(error: OSError) -> bool:
    """Whether printing failed, which names no file: a full disk, a device that is gone, a closed descriptor."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)


def build_parser(command: str) -> argparse.ArgumentParser:
    """The parser of all commands, of which only ``command`` is imported where it is one of LATER_COMMANDS.

    Raises:
        ModuleNotFoundError: that one needs packages that are not there.
    """
    from service.commands.batch import add_batch_command
    from service.commands.evaluate import add_evaluate_command
    from service.commands.flags import FlagParser
    from service.commands.health import add_health_command
    from service.commands.serve import add_serve_command
    from service.commands.translate import add_translate_command
    from service.commands.verify import add_verify_command
    from service.metrics import package_version

    parser: argparse.ArgumentParser = FlagParser(
        prog="dragoman",
        description="Neural machine translation: serve it, use it, train it.",
        epilog="`dragoman COMMAND --help` explains every option. Exit codes: 0 done, 1 failed, 2 wrong usage, "
        "78 wrong configuration or bundle, or packages that are missing.",
    )
    parser.add_argument("--version", action="version", version=f"dragoman {package_version()}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    add_serve_command(subparsers)
    add_translate_command(subparsers)
    add_batch_command(subparsers)
    add_evaluate_command(subparsers)
    add_health_command(subparsers)
    add_verify_command(subparsers)
    _add_later_commands(subparsers, command)
    return parser


def _add_later_commands(subparsers: Subparsers, command: str) -> None:
    wanted = LATER_COMMANDS.get(command)
    if wanted:
        getattr(importlib.import_module(wanted.module), wanted.add)(subparsers)
    for name, later in LATER_COMMANDS.items():
        if name not in subparsers.choices:
            subparsers.add_parser(name, help=later.help).set_defaults(run=_not_imported)


def _not_imported(options: argparse.Namespace) -> int:
    raise RuntimeError("a command was parsed that was not imported. This is a bug.")


def _fail(command: str, message: str, code: int) -> int:
    leave_unwritten()
    print(f"dragoman {command}: {message}" if command else message, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
