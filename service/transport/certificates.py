"""The server's certificate, its key and the roots of its clients, read anew when the files change.

Knows: files, TLS. Does not know: who connects. gRPC asks for the certificate at each handshake, on a thread of its own;
open connections keep the one they began with.
"""

import logging
import threading
from pathlib import Path
from typing import Any

import grpc

from service.errors import ConfigurationError
from service.metrics import Metrics
from service.transport.pem_files import check_pair, check_roots
from service.transport.security import SecurityOptions
from service.transport.watched_files import WatchedFiles

log = logging.getLogger("dragoman.tls")


class ServerCertificates:
    """What the server shows and asks for at a handshake.

    Raises:
        ConfigurationError: a file cannot be read, or certificate and key do not belong together.
    """

    def __init__(self, options: SecurityOptions, metrics: Metrics) -> None:
        self._certificate, self._key = Path(options.tls_certificate), Path(options.tls_key)
        self._client_ca = Path(options.tls_client_ca) if options.tls_client_ca else None
        self._metrics = metrics
        self._lock = threading.Lock()
        files = (self._certificate, self._key, self._client_ca)
        self._files = WatchedFiles(*(file for file in files if file is not None))
        try:
            self._first = self._read()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"TLS: {_told(error)}") from None

    def credentials(self) -> grpc.ServerCredentials:
        """What add_secure_port takes."""
        needs_client = self._client_ca is not None
        on_handshake: Any = self._on_handshake  # the published types do not know that it may answer None
        return grpc.dynamic_ssl_server_credentials(self._first, on_handshake, needs_client)

    def _on_handshake(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration, or None for the one in use: also where new files are damaged, which is logged once."""
        with self._lock:
            if not self._files.have_changed():
                return None
            try:
                configuration = self._read()
            except (OSError, ValueError) as error:
                self._metrics.credentials_reloaded("certificate", "refused")
                log.error("the new certificate is refused, the old one stays: %s", _told(error))
                return None
            self._metrics.credentials_reloaded("certificate", "taken")
            log.info("certificate read anew")
            return configuration

    def _read(self) -> grpc.ServerCertificateConfiguration:
        pair = (self._key.read_bytes(), self._certificate.read_bytes())
        roots = self._client_ca.read_bytes() if self._client_ca else None
        check_pair(self._certificate, self._key)
        if self._client_ca:
            check_roots(self._client_ca)
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot read {error.filename}: {error.strerror}"
    return str(error)
