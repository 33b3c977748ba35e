"""Certificates, keys and roots in PEM files: what is wrong with one, before gRPC fails at every handshake.

Knows: files, OpenSSL. Does not know: who shows them to whom.
"""

import ssl
from pathlib import Path


def check_pair(certificate: Path, key: Path) -> None:
    """Raises ValueError where they are not a certificate and its key; OSError where one cannot be read."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        why = error.reason or "one holds none"
        raise ValueError(f"{certificate} and {key} are no pair of PEM files: {why}") from None


def check_roots(file: Path) -> None:
    """Raises ValueError where it holds no certificates; OSError where it cannot be read."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(file)
    except ssl.SSLError as error:
        raise ValueError(f"{file} holds no PEM certificates: {error.reason}") from None


def _no_password() -> str:
    raise ValueError("the private key asks for a password; give one without")
