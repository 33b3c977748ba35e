"""`dragoman serve`. Knows: flags of the service. Does not know: what they do (service/config.py explains each)."""

import argparse
import asyncio
import dataclasses
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from service.commands.exit_codes import DONE, INTERRUPTED
from service.config import ServiceConfig, load_config, parse_text
from service.errors import ConfigurationError
from service.event_loop import new_event_loop
from service.logs import configure

# At rest it holds 14 to 20 open files, and a few more for each connection's first moment.
MIN_FILES, MAX_FILES = 64, 65_536


def add_serve_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``serve``: one flag for each field of ServiceConfig."""
    parser = subparsers.add_parser(
        "serve",
        help="the gRPC service",
        description="Serves translations over gRPC until SIGTERM. Every option can also stand in a TOML file "
        "(max_rows = 64) or in the environment (DRAGOMAN_MAX_ROWS=64); flags go before the environment, the "
        "environment before the file.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="settings; unknown keys are an error")
    for field in dataclasses.fields(ServiceConfig):
        flag = "--" + field.name.replace("_", "-")
        meaning = field.metadata["meaning"]
        if isinstance(field.default, tuple):
            parser.add_argument(flag, action="append", metavar="DIR", help=f"{meaning}; may be repeated")
        elif isinstance(field.default, bool):
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=None, help=f"{meaning} (default: {field.default})"
            )
        else:
            metavar = {int: "N", float: "X", str: "VALUE"}[type(field.default)]
            shown = field.default if field.default != "" else "none"
            parser.add_argument(flag, metavar=metavar, help=f"{meaning} (default: {shown})".replace("%", "%%"))
    parser.set_defaults(run=serve, parser=parser)


def serve(options: argparse.Namespace) -> int:
    """Runs the service; returns the exit code.

    Raises:
        ConfigurationError, BundleError: it cannot start.
    """
    try:
        flags = _flags(options)
    except ConfigurationError as error:
        options.parser.error(str(error))
    config = load_config(options.config, os.environ, flags)
    configure(config.log_level, config.log_format)
    _leave_on_signals()
    allow_files()
    from service.app import Application  # loads ONNX Runtime: not before the configuration is known to be right

    async def run() -> int:
        return await Application(config, end_process=_end_process).run()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(run())


def _leave_on_signals() -> None:
    """Nothing was accepted yet. Said aloud, because the first process of a container has no default action.

    An interrupt that a background job was told to ignore stays ignored until the service takes it. What SIGHUP asks
    for, a look at the bundles, is still to come.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(DONE))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))


def allow_files() -> None:
    """Lets this process open as many files as the system grants it: each connection is one.

    Raises:
        ConfigurationError: these are too few to begin with; libraries would end the process without a word.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if most == resource.RLIM_INFINITY else min(most, MAX_FILES)
    if wanted < MIN_FILES:
        raise ConfigurationError(f"this process may open {wanted} files at a time; it needs {MIN_FILES} (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _end_process(code: int) -> None:
    """Ends at once, with the connections closed by the system and no wait for a thread that is stuck."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(ServiceConfig):
        value = getattr(options, field.name)
        if isinstance(value, str):
            value = parse_text("--" + field.name.replace("_", "-"), field, value)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return values
