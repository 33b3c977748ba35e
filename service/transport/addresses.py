"""Whether a name's addresses are free, all of them. Knows: sockets. Does not know: gRPC."""

import errno
import socket


def is_busy(listen: str) -> bool:
    """Whether somebody listens on the port at one of the addresses that the host of HOST:PORT stands for.

    gRPC is content where it can have one of them: of "localhost" that of IPv6, while another server has that of IPv4.
    """
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):  # the latter of a part of the name that is empty or longer than 63 characters
        return False  # no such host: gRPC says so
    return int(port) != 0 and any(_is_taken(family, address) for family, _, _, _, address in found)


def _is_taken(family: int, address: tuple[object, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False
