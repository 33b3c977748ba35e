"""Flags that say how to reach a service: TLS, certificates, token. Knows: their names. Does not know: gRPC."""

import argparse
from pathlib import Path

from service.connection import Connection
from service.errors import ConfigurationError
from service.remote_engine import DEFAULT_PATIENCE_S

_FLAGS = ("tls", "ca", "certificate", "key", "server_name", "token_file")


def add_connection_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that make a Connection."""
    group = parser.add_argument_group("a service that speaks TLS or asks for a token")
    group.add_argument("--tls", action="store_true", help="use TLS; so it is where --ca or --certificate is given")
    group.add_argument("--ca", type=Path, metavar="FILE", help="PEM roots of its certificate (default: public ones)")
    group.add_argument("--certificate", type=Path, metavar="FILE", help="PEM certificate to show (mutual TLS)")
    group.add_argument("--key", type=Path, metavar="FILE", help="PEM key of --certificate")
    group.add_argument("--server-name", default="", metavar="NAME", help="name in its certificate, if not the host")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="file that holds the token to send")


def add_patience_flag(parser: argparse.ArgumentParser) -> None:
    """How long a service may be away, for commands that go on when it is back."""
    parser.add_argument(
        "--patience-s", type=_seconds, default=DEFAULT_PATIENCE_S, metavar="S",
        help="how long the service of --target may give no answer before the command fails (default: %(default)s)",
    )  # fmt: skip


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds > 0")
    return seconds


def read_connection(options: argparse.Namespace, target: str) -> Connection:
    """The connection of the flags; ends the program with 2 where they do not fit together."""
    try:
        return Connection(target, **{name: getattr(options, name) for name in _FLAGS})
    except ConfigurationError as error:
        parser: argparse.ArgumentParser = options.parser
        parser.error(str(error))


def refuse_connection_flags(options: argparse.Namespace) -> None:
    """Ends the program with 2 where one of the flags is given, though there is no service to reach."""
    has_patience = options.patience_s != DEFAULT_PATIENCE_S
    for name in (*_FLAGS, *(["patience_s"] if has_patience else [])):
        if getattr(options, name):
            parser: argparse.ArgumentParser = options.parser
            parser.error(f"--{name.replace('_', '-')} is for --target")
