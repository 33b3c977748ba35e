"""Who calls: bearer tokens, from a file that is read anew when it changes.

Knows: the file's form and the authorization header. Does not know: what a call does. A table of the file is a client:

    [web]
    tokens = ["sha256:9f86d0..."]             # of each token; a token itself can stand there too. Several: for rotation
    methods = ["Translate", "ListModels"]     # unset: all of TranslationService
    max_open_calls = 8                        # unset: max_client_calls
    max_open_tokens = 20000                   # unset: max_client_tokens

Tokens are kept as digests only and compared in constant time; neither they nor their digests are logged or sent.
"""

import hashlib
import hmac
import logging
import threading
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import ConfigurationError, PermissionDenied, Unauthenticated
from service.metrics import Metrics
from service.pb import translation_pb2 as pb
from service.transport.watched_files import WatchedFiles

log = logging.getLogger("dragoman.clients")
AUTHORIZATION = "authorization"
MIN_TOKEN_CHARACTERS = 16
_DIGEST = "sha256:"
_METHODS = frozenset(pb.DESCRIPTOR.services_by_name["TranslationService"].methods_by_name)
_KEYS = ("tokens", "methods", "max_open_calls", "max_open_tokens")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        name: what its quota goes by. is_known: the name comes from a token or a certificate and may stand in a log.
        methods: those it may call. max_calls, max_tokens: what it may have open; None: what every client may.
    """

    name: str
    is_known: bool = True
    methods: frozenset[str] = _METHODS
    max_calls: int | None = None
    max_tokens: int | None = None

    def check(self, method: str) -> None:
        """Raises PermissionDenied where the method of TranslationService is not for this client."""
        if method not in self.methods:
            raise PermissionDenied(f"client {self.name!r} may not call {method}")


class Callers:
    """The clients of a file.

    Raises:
        ConfigurationError: the file cannot be read or is not of the form above.
    """

    def __init__(self, file: Path, metrics: Metrics) -> None:
        self._file = file
        self._metrics = metrics
        self._lock = threading.Lock()
        self._files = WatchedFiles(file)
        self._by_digest = _read(file)

    def identify(self, metadata: Iterable[tuple[str, Any]]) -> Caller:
        """The client whose token the call carries.

        Raises:
            Unauthenticated: it carries none, several, or one that is not in the file.
        """
        values = [value for key, value in metadata if key == AUTHORIZATION]
        scheme, _, token = values[0].partition(" ") if len(values) == 1 and isinstance(values[0], str) else ("", "", "")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("a token is needed, as one metadata entry 'authorization: Bearer TOKEN'")
        digest = _digest(token.strip())
        found: Caller | None = None
        for known, caller in self._current().items():  # all of them, whichever it is
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise Unauthenticated("the token is not known here")
        return found

    def _current(self) -> dict[bytes, Caller]:
        """The file's clients; those it had before where it is damaged, which is logged once."""
        with self._lock:
            if not self._files.have_changed():
                return self._by_digest
            try:
                self._by_digest = _read(self._file)
            except ConfigurationError as error:
                self._metrics.credentials_reloaded("clients", "refused")
                log.error("the new file of clients is refused, the old one stays: %s", error)
                return self._by_digest
            self._metrics.credentials_reloaded("clients", "taken")
            num_clients = len({caller.name for caller in self._by_digest.values()})
            log.info("clients read anew", extra={"facts": {"num_clients": num_clients}})
            return self._by_digest


def _read(file: Path) -> dict[bytes, Caller]:
    """Digest of a token -> its client. Messages name clients and keys, never a value, which could be a token."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError):  # also bytes that are no text, numbers without end, brackets without end
        raise ConfigurationError(f"{file} is not valid TOML") from None
    by_digest: dict[bytes, Caller] = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigurationError(f"{file}: {name!r} must be a table, as in [{name}]")
        caller, digests = _caller(f"{file}: client {name!r}", name, table)
        for digest in digests:
            if digest in by_digest:
                raise ConfigurationError(f"{file}: clients {by_digest[digest].name!r} and {name!r} share a token")
            by_digest[digest] = caller
    if not by_digest:
        raise ConfigurationError(f"{file} holds no client")
    return by_digest


def _caller(where: str, name: str, table: dict[str, Any]) -> tuple[Caller, list[bytes]]:
    for key in table:
        if key not in _KEYS:
            raise ConfigurationError(f"{where}: unknown key {key!r}; there are {', '.join(_KEYS)}")
    if not (name.isascii() and name.isprintable() and 1 <= len(name) <= 64):
        raise ConfigurationError(f"{where}: a name has 1 to 64 printable ASCII characters")
    tokens = table.get("tokens")
    if not isinstance(tokens, list) or not tokens:
        raise ConfigurationError(f"{where}: tokens must be a list of at least one")
    methods = table.get("methods", sorted(_METHODS))
    if not isinstance(methods, list) or not {str(method) for method in methods} <= _METHODS:
        raise ConfigurationError(f"{where}: methods must be among {', '.join(sorted(_METHODS))}")
    for key in ("max_open_calls", "max_open_tokens"):
        value = table.get(key, 1)
        if type(value) is not int or value < 1:
            raise ConfigurationError(f"{where}: {key} must be a whole number >= 1")
    max_calls, max_tokens = table.get("max_open_calls"), table.get("max_open_tokens")
    caller = Caller(name, methods=frozenset(methods), max_calls=max_calls, max_tokens=max_tokens)
    return caller, [_stored_digest(where, token) for token in tokens]


def _stored_digest(where: str, token: object) -> bytes:
    if isinstance(token, str) and token.startswith(_DIGEST):
        try:
            digest = bytes.fromhex(token.removeprefix(_DIGEST))
        except ValueError:
            digest = b""
        if len(digest) != hashlib.sha256().digest_size:
            raise ConfigurationError(f"{where}: after {_DIGEST!r} there must be 64 hexadecimal digits")
        return digest
    is_token = isinstance(token, str) and token.isascii() and token.isprintable() and " " not in token
    if not isinstance(token, str) or not is_token or len(token) < MIN_TOKEN_CHARACTERS:
        least = f"at least {MIN_TOKEN_CHARACTERS} printable ASCII characters without spaces"
        raise ConfigurationError(f"{where}: a token has {least}")
    return _digest(token)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
