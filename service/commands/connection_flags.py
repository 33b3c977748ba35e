"""Flags that say how to reach a service: TLS, certificates, token. Knows: their names. Does not know: gRPC."""

import argparse
from pathlib import Path

from service.connection import Connection
from service.errors import ConfigurationError

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


def read_connection(options: argparse.Namespace, target: str) -> Connection:
    """The connection of the flags; ends the program with 2 where they do not fit together."""
    try:
        return Connection(target, **{name: getattr(options, name) for name in _FLAGS})
    except ConfigurationError as error:
        parser: argparse.ArgumentParser = options.parser
        parser.error(str(error))


def refuse_connection_flags(options: argparse.Namespace) -> None:
    """Ends the program with 2 where one of the flags is given, though there is no service to reach."""
    for name in _FLAGS:
        if getattr(options, name):
            parser: argparse.ArgumentParser = options.parser
            parser.error(f"--{name.replace('_', '-')} is for --target")
