"""Everything that can go wrong on purpose, as one tree, and what a gRPC client is told of each.

    DragomanError
    |-- ConfigurationError        the server or a command was set up wrongly            exit 78
    |-- BundleError               a model bundle is missing, damaged or unsuitable      exit 78
    |-- InputError                a file or standard input given to a command is unfit   exit 1
    |-- OutputError               what a command makes cannot be written                exit 1
    |-- RequestError              a request was answered with something else than a translation
        |-- InvalidRequest        a field is out of its documented range                INVALID_ARGUMENT
        |-- ModelNotFound         no model of that name                                 NOT_FOUND
        |-- LanguagePairNotLoaded no loaded model for that pair of languages            FAILED_PRECONDITION
        |-- Overloaded            the queue or a quota is full; try again later         RESOURCE_EXHAUSTED
        |   |-- QuotaExceeded     this client has as much open as it may have           RESOURCE_EXHAUSTED
        |-- Unauthenticated       no token, or one that is not known                    UNAUTHENTICATED
        |-- PermissionDenied      the caller is known, but may not do this              PERMISSION_DENIED
        |-- Draining              the server is shutting down; try another one          UNAVAILABLE
        |-- NotServing            models are loading, or an engine is stuck             UNAVAILABLE
        |-- DeadlineExceeded      the caller's deadline passed first                    DEADLINE_EXCEEDED
        |-- Cancelled             the caller went away or said stop                     CANCELLED
        |-- EngineFailure         our fault; details are in the server's log only       INTERNAL

Knows: kinds of failure and their numbers. Does not know: gRPC objects, which service/transport makes from STATUS.
"""

from typing import Final


class DragomanError(Exception):
    """Base of every error raised on purpose. Its text is written for the person who can do something about it."""


class ConfigurationError(DragomanError):
    """An option, environment variable, file or port is wrong; the message says which and what to do.

    A port that `dragoman serve` cannot have ends it with 1, not 78: another process may let go of it.
    """


class BundleError(DragomanError):
    """A bundle cannot be served; the message names the file and what is wrong with it."""


class InputError(DragomanError):
    """A file or standard input given to a command cannot be used; the message says where."""


class OutputError(DragomanError):
    """What a command makes cannot be written where it should go; the message says where and why."""


class RequestError(DragomanError):
    """Base of what a client can be answered instead of a translation. Its text is safe to send to a client.

    Attributes:
        numbers: those that the text holds, by name, for programs: the metadata of google.rpc.ErrorInfo.
    """

    def __init__(self, message: str = "", **numbers: float) -> None:
        super().__init__(message)
        self.numbers = numbers


class InvalidRequest(RequestError):
    """A field of a request is out of its documented range.

    Attributes:
        field: path of the field in the protobuf message, such as ``texts[3]`` or ``options.num_beams``.
    """

    def __init__(self, field: str, description: str, **numbers: float) -> None:
        super().__init__(f"{field}: {description}", **numbers)
        self.field = field
        self.description = description


class ModelNotFound(RequestError):
    """No loaded model has the requested name."""


class LanguagePairNotLoaded(RequestError):
    """No loaded model translates between the requested languages."""


class Overloaded(RequestError):
    """The bounded queue, or a quota, is full.

    Attributes:
        retry_after_s: when trying again has a chance.
    """

    def __init__(self, message: str, retry_after_s: float, **numbers: float) -> None:
        super().__init__(message, **numbers)
        self.retry_after_s = retry_after_s


class QuotaExceeded(Overloaded):
    """One client has as much open as it may have; others are not concerned."""


class Unauthenticated(RequestError):
    """The call carries no token, or one that is not known."""


class PermissionDenied(RequestError):
    """The caller is known, but may not do this."""


class Draining(RequestError):
    """The server no longer takes requests because it is shutting down."""


class NotServing(RequestError):
    """The server takes no requests now: its models are loading, or an engine makes no progress."""


class DeadlineExceeded(RequestError):
    """The request's deadline passed before its answer was ready."""


class Cancelled(RequestError):
    """The caller cancelled the request or disconnected."""


class EngineFailure(RequestError):
    """The engine failed on this request. The text never holds internal detail."""

    def __init__(self, message: str = "internal error; see the server's log") -> None:
        super().__init__(message)


# Error -> (gRPC status name, machine-readable reason of google.rpc.ErrorInfo). README.md prints this table.
STATUS: Final[dict[type[RequestError], tuple[str, str]]] = {
    InvalidRequest: ("INVALID_ARGUMENT", "INVALID_FIELD"),
    ModelNotFound: ("NOT_FOUND", "MODEL_NOT_FOUND"),
    LanguagePairNotLoaded: ("FAILED_PRECONDITION", "LANGUAGE_PAIR_NOT_LOADED"),
    Overloaded: ("RESOURCE_EXHAUSTED", "OVERLOADED"),
    QuotaExceeded: ("RESOURCE_EXHAUSTED", "CLIENT_QUOTA"),
    Unauthenticated: ("UNAUTHENTICATED", "UNAUTHENTICATED"),
    PermissionDenied: ("PERMISSION_DENIED", "PERMISSION_DENIED"),
    Draining: ("UNAVAILABLE", "DRAINING"),
    NotServing: ("UNAVAILABLE", "NOT_SERVING"),
    DeadlineExceeded: ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
    Cancelled: ("CANCELLED", "CANCELLED"),
    EngineFailure: ("INTERNAL", "INTERNAL"),
}
