"""The methods of TranslationService, each a few lines: read, ask, answer.

Knows: which parts a call goes through. Does not know: gRPC errors (interceptors.py), limits (validation.py), engines.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from service.decoding.options import DecodeOptions
from service.engine.request import TextAnswer, TextResult
from service.engine.scoring import PairAnswer
from service.errors import Cancelled, DeadlineExceeded, Draining, InvalidRequest, RequestError
from service.metrics import Metrics
from service.pb import translation_pb2 as pb
from service.pb import translation_pb2_grpc as pb_grpc
from service.transport.admission import Admission
from service.transport.languages import model_languages
from service.transport.leases import Leases
from service.transport.limits import Limits
from service.transport.registry import ModelRegistry
from service.transport.request_ids import rename_call
from service.transport.responses import list_models, score_result, text_result
from service.transport.status import status_and_reason
from service.transport.submission import Submitter, deadline_of
from service.transport.text_stream import TextStream, read_stream_config
from service.transport.validation import read_config, read_pairs, read_request

Context = grpc.aio.ServicerContext[Any, Any]
# Whoever gets one of these for any text sends the whole call again, or does not wait for it any more.
_WHOLE_CALL = (Draining, DeadlineExceeded, Cancelled)


@dataclass(slots=True)
class ServingState:
    """What calls work with. ``models`` is replaced as a whole when models are loaded."""

    models: ModelRegistry
    limits: Limits
    defaults: DecodeOptions
    admission: Admission
    metrics: Metrics
    submitter: Submitter
    leases: Leases = field(default_factory=Leases)


class TranslationServicer(pb_grpc.TranslationServiceServicer):
    """Raises RequestErrors; the interceptor turns them into statuses."""

    def __init__(self, state: ServingState) -> None:
        self._state = state

    async def Translate(  # noqa: N802  # the contract's name
        self, request: pb.TranslateRequest, context: Context
    ) -> pb.TranslateResponse:
        """Waits for all texts; fails as a whole where every text failed, or the server or the caller is leaving."""
        state = self._state
        request_id = rename_call(context, request.request_id)
        texts, settings = read_request(request, state.limits, state.defaults)
        translator = state.models.choose(settings.model, settings.source_language, settings.target_language)
        with state.leases.hold(translator):
            answers = await state.submitter.translate(translator, texts, settings, deadline_of(context))
        for answer in answers:
            count_answer(state.metrics, answer)
        raise_common(answers)
        info = translator.info
        source, target = model_languages(info, settings.source_language, settings.target_language)
        return pb.TranslateResponse(
            results=[text_result(answer, settings) for answer in answers],
            request_id=request_id,
            model=info.name,
            model_version=info.version,
            source_language=source,
            target_language=target,
        )

    async def TranslateStream(  # noqa: N802  # the contract's name
        self, requests: AsyncIterator[pb.TranslateStreamRequest], context: Context
    ) -> None:
        """Runs until the client has sent its last text and all are answered, or the server drains."""
        state = self._state
        config = await read_stream_config(requests, state.limits.max_stream_idle_s, state.admission.draining)
        rename_call(context, config.request_id)
        settings = read_config(config, state.limits, state.defaults)
        with within_config():
            translator = state.models.choose(settings.model, settings.source_language, settings.target_language)
            # To refuse them text by text would let a job of millions fail row by row.
            translator.model_options.check(settings.options)
        stream = TextStream(requests, context, translator, settings, state.limits)
        with state.leases.hold(translator):
            await stream.run(
                state.submitter, state.admission.draining, lambda answer: count_answer(state.metrics, answer)
            )

    async def Score(  # noqa: N802  # the contract's name
        self, request: pb.ScoreRequest, context: Context
    ) -> pb.ScoreResponse:
        """Waits for all pairs; fails as a whole where Translate would."""
        state = self._state
        request_id = rename_call(context, request.request_id)
        pairs, settings = read_pairs(request, state.limits, state.defaults)
        translator = state.models.choose(settings.model, settings.source_language, settings.target_language)
        with state.leases.hold(translator):
            answers = await state.submitter.score(translator, pairs, settings, deadline_of(context))
        for answer in answers:
            state.metrics.text_answered(outcome_of(answer) or "scored", split=False)
        raise_common(answers)
        return pb.ScoreResponse(
            results=[score_result(answer, settings.include_alignment) for answer in answers],
            request_id=request_id,
            model=translator.info.name,
            model_version=translator.info.version,
        )

    async def ListModels(  # noqa: N802  # the contract's name
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Answers at once, from memory."""
        return list_models(self._state.models.infos, self._state.limits, self._state.defaults)


@contextmanager
def within_config() -> Iterator[None]:
    """What is wrong in here is wrong with a field of a stream's first message."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(f"config.{error.field}", error.description, **error.numbers) from None


def raise_common(answers: Sequence[TextAnswer | PairAnswer]) -> None:
    """Raises the error that stands for the whole call, where there is one; others stay with their texts."""
    errors = [answer for answer in answers if isinstance(answer, RequestError)]
    for error in errors:
        if isinstance(error, _WHOLE_CALL) or len(errors) == len(answers):
            raise error


def count_answer(metrics: Metrics, answer: TextAnswer) -> None:
    """Counts one text."""
    metrics.text_answered(outcome_of(answer) or "translated", split=isinstance(answer, TextResult) and answer.split)


def outcome_of(answer: TextAnswer | PairAnswer) -> str:
    """The reason of an error, in lower case; "" for a result."""
    return status_and_reason(answer)[1].lower() if isinstance(answer, RequestError) else ""
