"""How much each client has open: calls, and source tokens that wait or are being translated.

Knows: counting. Does not know: how a client is told from another (callers.py). Holds only clients that have something
open, so that strangers cannot make it grow.
"""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType

from service.errors import InvalidRequest, QuotaExceeded
from service.transport.admission import OVERLOAD_RETRY_S
from service.transport.callers import Caller

CountRefusal = Callable[[str], None]


class Share:
    """What one client has open; calls are counted on the event loop, tokens on any thread."""

    def __init__(self, key: str, max_calls: int, max_tokens: int, count_refusal: CountRefusal) -> None:
        self.key = key
        self.num_calls = 0
        self.num_tokens = 0
        self._max_calls, self._max_tokens = max_calls, max_tokens
        self._count_refusal = count_refusal
        self._lock = threading.Lock()

    def open_call(self) -> None:
        """Raises QuotaExceeded where the client has as many calls open as it may."""
        if self._max_calls and self.num_calls >= self._max_calls:
            self._count_refusal("client_calls")
            raise QuotaExceeded(
                f"this client has {self.num_calls} calls open; at most {self._max_calls} may be",
                OVERLOAD_RETRY_S,
                open_calls=self.num_calls,
                max_open_calls=self._max_calls,
            )
        self.num_calls += 1

    def take(self, num_tokens: int, field: str, is_counted: bool = True) -> None:
        """Counts tokens as open, all or none of them.

        Args:
            field: of the message that holds them. is_counted: whether a refusal is told; whoever asks again and again
                is not refused, unless there never will be room.

        Raises:
            QuotaExceeded: there is no room now. InvalidRequest: there never will be.
        """
        with self._lock:
            if self._max_tokens and self.num_tokens + num_tokens > self._max_tokens:
                if is_counted or num_tokens > self._max_tokens:
                    self._count_refusal("client_tokens")
                most = f"at most {self._max_tokens} of one client may be"
                if num_tokens > self._max_tokens:
                    many = f"{num_tokens} source tokens; {most} open; send less at a time"
                    raise InvalidRequest(field, many, value=num_tokens, max=self._max_tokens)
                raise QuotaExceeded(
                    f"this client has {self.num_tokens} source tokens open and sent {num_tokens}; {most}",
                    OVERLOAD_RETRY_S,
                    open_tokens=self.num_tokens,
                    sent_tokens=num_tokens,
                    max_open_tokens=self._max_tokens,
                )
            self.num_tokens += num_tokens

    def give_back(self, num_tokens: int) -> None:
        """The opposite of take()."""
        with self._lock:
            self.num_tokens -= num_tokens


class TokenHold:
    """The tokens of one submission in a share: taken when they are counted, given back with the last answer.

    The engine calls counted(), as SubmissionWatch. A submission that is left with an exception holds nothing.

    Args:
        field, is_counted: as Share.take().
    """

    def __init__(self, owner: Share, num_texts: int, field: str, is_counted: bool = True) -> None:
        self._share, self._field, self._is_counted = owner, field, is_counted
        self._num_missing = num_texts
        self._num_tokens = 0
        self._lock = threading.Lock()

    def counted(self, num_source_tokens: int) -> None:
        """Raises as Share.take() does."""
        self._share.take(num_source_tokens, self._field, self._is_counted)
        self._num_tokens = num_source_tokens

    def answered(self) -> None:
        """One text has its answer; called on any thread."""
        with self._lock:
            self._num_missing -= 1
            is_last = self._num_missing == 0
        if is_last:
            self._give_back()

    def __enter__(self) -> "TokenHold":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._give_back()

    def _give_back(self) -> None:
        num_tokens, self._num_tokens = self._num_tokens, 0
        self._share.give_back(num_tokens)


# Whose call this is. Without a call: somebody without limits.
share: ContextVar[Share] = ContextVar("share", default=Share("", 0, 0, lambda reason: None))  # noqa: B039


class Quotas:
    """The shares of all clients that have a call open. Used on the event loop only."""

    def __init__(self, max_calls: int, max_tokens: int, count_refusal: CountRefusal) -> None:
        self._max_calls, self._max_tokens = max_calls, max_tokens
        self._count_refusal = count_refusal
        self._shares: dict[str, Share] = {}

    def __len__(self) -> int:
        return len(self._shares)

    def open_call(self, caller: Caller) -> Share:
        """Takes one call of this client's share until close_call(); from here on ``share`` is this one.

        Raises:
            QuotaExceeded: it has as many open as it may.
        """
        key = f"{caller.is_known}/{caller.name}"
        own = self._shares.get(key)
        if own is None:
            max_calls = self._max_calls if caller.max_calls is None else caller.max_calls
            max_tokens = self._max_tokens if caller.max_tokens is None else caller.max_tokens
            own = self._shares[key] = Share(key, max_calls, max_tokens, self._count_refusal)
        own.open_call()
        share.set(own)
        return own

    def close_call(self, own: Share) -> None:
        """The opposite of open_call()."""
        own.num_calls -= 1
        if not own.num_calls and self._shares.get(own.key) is own:
            del self._shares[own.key]
