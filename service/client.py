"""A small Python client: one channel, deadlines, retries where they are safe, streams that keep their order.

Knows: the public contract. Does not know: how the server works.

    with Client("127.0.0.1:50051") as client:
        [result] = client.translate(["Good morning."], source="en", target="fr")
        print(result.text)
"""

import json
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.client_answers import (
    PRIORITIES,
    ServiceError,
    call_error,
    decode_options,
    settings,
    text_error,
    text_outcome,
)
from service.connection import Connection
from service.decoding.options import DecodeOptions
from service.engine.request import Priority, TextFormat, TextResult
from service.pb import translation_pb2 as pb
from service.pb import translation_pb2_grpc as pb_grpc

__all__ = ["SERVICE_CONFIG", "Client", "ServiceError"]

# Only UNAVAILABLE is sent again: nothing was done there. The server's pushback overrides the backoff. That alone does
# not carry a client over a replacement: where one of two replicas drains, each attempt meets it with probability 1/2,
# and of 200 calls at once 13 met it four times. So replicas are also watched (gRFC A17): one that loads or drains gets
# no call.
SERVICE_CONFIG: Final = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "dragoman.v1.TranslationService"},
    "methodConfig": [
        {
            # No stream: where a server is killed before its first answer, gRPC's own retry of a stream hangs for ever.
            "name": [
                {"service": "dragoman.v1.TranslationService", "method": method}
                for method in ("Translate", "Score", "ListModels")
            ],
            "retryPolicy": {
                "maxAttempts": 5,  # the most that gRPC allows
                "initialBackoff": "0.2s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
# A request that is larger than what gRPC keeps of it cannot be sent again; by itself it keeps 256 KiB.
MAX_RETRIED_BYTES = 16 * 1024 * 1024
# Texts of a stream that were sent and whose results were not handed out yet; bounds what waits to be put in order.
MAX_OPEN_TEXTS = 512


class Client:
    """A connection to a service.

    Args:
        target: HOST:PORT, or any name gRPC resolves, such as ``dns:///dragoman:50051``; a Connection where the service
            speaks TLS or asks for a token.
        timeout_s: deadline of each call that is not a stream.

    Methods take, besides texts and languages, some of these:
        options: how to search; None: the service's defaults.
        alignment: whether results say which part of the source each part of the translation looked at.
        text_format: TextFormat.HTML translates what a reader sees of texts in HTML, which they come back in.
        priority: Priority.BATCH lets others go first.
        model: name of the model, where the languages alone do not say which, or are "".

    Raises:
        ConfigurationError: a file of the connection cannot be used.
    """

    def __init__(self, target: str | Connection, timeout_s: float = 60.0) -> None:
        connection = Connection(target) if isinstance(target, str) else target
        self._connection = connection
        self._channel = connection.open(channel_options(connection))
        self._stub: Any = pb_grpc.TranslationServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._timeout_s = timeout_s

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends open calls and the connection."""
        self._channel.close()

    def list_models(self) -> pb.ListModelsResponse:
        """What the service has loaded and allows. Raises ServiceError."""
        try:
            response: pb.ListModelsResponse = self._stub.ListModels(pb.ListModelsRequest(), timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise call_error(error) from None
        return response

    def decode_defaults(self) -> DecodeOptions:
        """What the service takes where a request says nothing. Raises ServiceError."""
        return decode_options(self.list_models().defaults)

    def health(self, service: str = "") -> str:
        """State of ``service`` as grpc.health.v1 names it: ``SERVING``, ``NOT_SERVING``, or ``SERVICE_UNKNOWN``.

        Raises:
            ServiceError: no answer.
        """
        request = health_pb2.HealthCheckRequest(service=service)
        with self._connection.open([]) as channel:  # the other one sends nothing to a server that is not ready
            stub: Any = health_pb2_grpc.HealthStub(channel)  # the published types lack Check
            try:
                response = stub.Check(request, timeout=self._timeout_s)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:  # Check's way to say that it does not know the name
                    return "SERVICE_UNKNOWN"
                raise call_error(error) from None
        name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
        return name

    def translate(
        self,
        texts: Sequence[str],
        *,
        source: str,
        target: str,
        options: DecodeOptions | None = None,
        alignment: bool = False,
        text_format: TextFormat = TextFormat.PLAIN,
        priority: Priority = Priority.INTERACTIVE,
        model: str = "",
    ) -> list[TextResult | ServiceError]:
        """Results in the order of the texts; a ServiceError in the place of a text that failed alone.

        Raises:
            ServiceError: the call failed as a whole. TypeError: ``texts`` is one text.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be a list of texts, not one text")
        asked = settings(source, target, options, alignment, text_format, priority, model)
        request = pb.TranslateRequest(texts=texts, **asked)
        try:
            response = self._stub.Translate(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise call_error(error) from None
        return [text_outcome(result) for result in response.results]

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        source: str,
        target: str,
        length_penalty: float | None = None,
        priority: Priority = Priority.INTERACTIVE,
        model: str = "",
    ) -> list[pb.TargetScore | ServiceError]:
        """How probable given translations are, (text, translation) each, with tokens and alignment; in their order.

        Raises:
            ServiceError: the call failed as a whole.
        """
        request = pb.ScoreRequest(
            pairs=[pb.ScorePair(source=text, target=translation) for text, translation in pairs],
            source_language=source,
            target_language=target,
            model=model,
            length_penalty=length_penalty,
            priority=PRIORITIES[priority],
            include_alignment=True,
        )
        try:
            response = self._stub.Score(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise call_error(error) from None
        return [text_error(item.error) if item.HasField("error") else item.score for item in response.results]

    def translate_stream(
        self,
        texts: Iterable[str],
        *,
        source: str,
        target: str,
        options: DecodeOptions | None = None,
        alignment: bool = False,
        text_format: TextFormat = TextFormat.PLAIN,
        priority: Priority = Priority.INTERACTIVE,
        model: str = "",
    ) -> Iterator[TextResult | ServiceError]:
        """Any number of texts, read as the service takes them; results in their order, each as soon as it can be.

        Raises:
            ServiceError: the stream broke; texts without a result may be sent again. TypeError: ``texts`` is one text.
            What ``texts`` raises, once the results before it are out.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be several texts, not one text")
        order = _Order(texts)
        found = self.stream(
            order.numbered(), source=source, target=target, options=options,
            alignment=alignment, text_format=text_format, priority=priority, model=model,
        )  # fmt: skip
        return order.results(found)

    def stream(
        self,
        texts: Iterable[tuple[str, str]],
        *,
        source: str,
        target: str,
        options: DecodeOptions | None = None,
        alignment: bool = False,
        text_format: TextFormat = TextFormat.PLAIN,
        priority: Priority = Priority.INTERACTIVE,
        model: str = "",
    ) -> Generator[tuple[str, TextResult | ServiceError], None, None]:
        """Results of (id, text) pairs, each with its id and as soon as it is there; gRPC's thread reads ``texts``.

        Raises:
            ServiceError: the stream broke; texts without a result may be sent again.
        """
        config = pb.StreamConfig(**settings(source, target, options, alignment, text_format, priority, model))

        def requests() -> Iterator[pb.TranslateStreamRequest]:
            yield pb.TranslateStreamRequest(config=config)
            for name, text in texts:
                yield pb.TranslateStreamRequest(text=pb.StreamText(id=name, text=text))

        call = self._stub.TranslateStream(requests())
        try:
            for response in call:
                yield response.id, text_outcome(response.result)
        except grpc.RpcError as error:
            raise call_error(error) from None
        finally:
            call.cancel()


def channel_options(connection: Connection) -> list[tuple[str, Any]]:
    """Options of a channel that spreads its calls over all ready replicas and sends again what none of them took."""
    config: dict[str, Any] = dict(SERVICE_CONFIG)
    if connection.token_file is not None and not connection.has_tls:
        del config["healthCheckConfig"]  # gRPC's own health check can bring the token over TLS only
    return [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.max_receive_message_length", -1),
        ("grpc.per_rpc_retry_buffer_size", MAX_RETRIED_BYTES),
        ("grpc.keepalive_time_ms", 30_000),  # a stream, which has no deadline, ends with a connection that died
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
    ]


class _Order:
    """Numbers a stream's texts, on gRPC's thread, and puts their results in order, on the caller's."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self._places = threading.Semaphore(MAX_OPEN_TEXTS)
        self._has_ended = False
        self._failure: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    def numbered(self) -> Iterator[tuple[str, str]]:
        """Each text with its number for an id, as soon as there is a place for it."""
        try:
            for number, text in enumerate(self._texts):
                self._places.acquire()
                if self._has_ended:
                    return
                yield str(number), text
        except Exception as error:  # gRPC would only say that the iterator failed
            self._failure.put(error)

    def results(
        self, found: Generator[tuple[str, TextResult | ServiceError], None, None]
    ) -> Iterator[TextResult | ServiceError]:
        """What the stream ``found``, which is closed at the end, whenever that comes."""
        early: dict[str, TextResult | ServiceError] = {}
        next_number = 0
        try:
            for name, result in found:
                early[name] = result
                while str(next_number) in early:
                    yield early.pop(str(next_number))
                    next_number += 1
                    self._places.release()
        finally:
            self._has_ended = True
            self._places.release()
            found.close()
        if not self._failure.empty():
            raise self._failure.get()
