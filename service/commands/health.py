"""`dragoman health`: one health check of a service, as an exit code. What a container's HEALTHCHECK runs.

Knows: grpc.health.v1's names and answers. Does not know: what makes a service ready.
"""

import argparse
import sys

from service.client import Client
from service.commands.connection_flags import add_connection_flags, read_connection
from service.commands.exit_codes import DONE, FAILED
from service.commands.flags import is_text
from service.config import parse_address
from service.errors import ConfigurationError

READY = "dragoman.v1.TranslationService"
"""SERVING while calls are taken; a model's name in its place asks for that model alone."""
ALIVE = ""
"""SERVING while the process can answer, also while it loads or drains."""


def add_health_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``health``."""
    parser = subparsers.add_parser(
        "health",
        help="whether a service takes calls",
        description="Asks a service's grpc.health.v1 once. Exit code 0: SERVING; 1: anything else, or no answer.",
    )
    parser.add_argument("address", metavar="HOST:PORT", help="the service")
    name = parser.add_mutually_exclusive_group()
    name.add_argument("--service", default=READY, metavar="NAME", help="name to ask for (default: %(default)s)")
    name.add_argument(
        "--alive", dest="service", action="store_const", const=ALIVE, help="ask only whether the process answers"
    )
    parser.add_argument(
        "--timeout", type=float, default=3.0, metavar="S", help="seconds to wait (default: %(default)s)"
    )
    add_connection_flags(parser)
    parser.set_defaults(run=health, parser=parser)


def health(options: argparse.Namespace) -> int:
    """Prints the state, to standard error where it is not SERVING; returns the exit code.

    Raises:
        ServiceError: no answer, in time or at all.
    """
    if not options.timeout > 0:
        options.parser.error(f"--timeout ({options.timeout}) must be > 0")
    if not is_text(options.service):
        options.parser.error("--service is not valid UTF-8")
    try:
        parse_address("address", options.address)
    except ConfigurationError as error:
        options.parser.error(str(error))
    with Client(read_connection(options, options.address), options.timeout) as client:
        state = client.health(options.service)
    is_serving = state == "SERVING"
    print(state, file=sys.stdout if is_serving else sys.stderr)
    return DONE if is_serving else FAILED
