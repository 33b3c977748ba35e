"""From the engine's answers to protobuf. Knows both forms. Does not know: calls."""

from collections.abc import Iterable

from service.decoding.options import DecodeOptions
from service.engine.request import AlignmentLink, FinishReason, ModelInfo, TextAnswer, TextResult
from service.engine.scoring import PairAnswer
from service.errors import RequestError
from service.pb import translation_pb2 as pb
from service.transport.limits import Limits
from service.transport.status import text_error
from service.transport.validation import Settings

_FINISH_REASONS = {
    FinishReason.END_TOKEN: pb.FINISH_REASON_END_TOKEN,
    FinishReason.LENGTH_LIMIT: pb.FINISH_REASON_LENGTH_LIMIT,
    FinishReason.REPETITION: pb.FINISH_REASON_REPETITION,
}


def text_result(answer: TextAnswer, settings: Settings) -> pb.TextResult:
    """What became of one text, with as much of it as the call's settings ask for."""
    if isinstance(answer, RequestError):
        return text_error(answer)
    return pb.TextResult(
        translation=_translation(answer, settings), finish_reason=_FINISH_REASONS[answer.finish_reason]
    )


def score_result(answer: PairAnswer, include_alignment: bool) -> pb.ScoreResult:
    """What became of one pair."""
    if isinstance(answer, RequestError):
        return pb.ScoreResult(error=text_error(answer).error)
    tokens = [
        pb.TokenScore(id=token.id, log_probability=token.log_probability, start=token.span[0], end=token.span[1])
        for token in answer.tokens
    ]
    return pb.ScoreResult(
        score=pb.TargetScore(
            score=answer.score,
            log_probability=answer.log_probability,
            tokens=tokens,
            alignment=_links(answer.alignment if include_alignment else ()),
            queue_s=answer.queue_s,
            score_s=answer.score_s,
        )
    )


def _links(alignment: Iterable[AlignmentLink]) -> list[pb.AlignmentLink]:
    return [
        pb.AlignmentLink(
            source_start=link.source_start,
            source_end=link.source_end,
            target_start=link.target_start,
            target_end=link.target_end,
            weight=link.weight,
        )
        for link in alignment
    ]


def list_models(infos: Iterable[ModelInfo], limits: Limits, defaults: DecodeOptions) -> pb.ListModelsResponse:
    """What is loaded and what is allowed."""
    return pb.ListModelsResponse(
        models=[
            pb.Model(
                name=info.name,
                version=info.version,
                source_language=info.source_language,
                target_language=info.target_language,
                precision=info.precision,
                device=info.device,
                max_source_tokens=info.max_source_tokens,
                max_target_tokens=info.max_target_tokens,
                source_languages=info.sources,
                target_languages=info.targets,
            )
            for info in infos
        ],
        limits=pb.Limits(
            max_texts=limits.max_texts,
            max_text_characters=limits.max_text_characters,
            max_request_characters=limits.max_request_characters,
            max_beams=limits.max_beams,
            max_alternatives=limits.max_alternatives,
            max_stream_texts=limits.max_stream_texts,
            max_message_bytes=limits.max_message_bytes,
        ),
        defaults=pb.DecodeOptions(
            num_beams=defaults.num_beams,
            length_penalty=defaults.length_penalty,
            num_alternatives=defaults.num_alternatives,
            max_length=defaults.max_length,
            no_repeat_ngram_size=defaults.no_repeat_ngram_size,
            repetition_penalty=defaults.repetition_penalty,
            min_length=defaults.min_length,
        ),
    )


def _translation(result: TextResult, settings: Settings) -> pb.Translation:
    include_token_ids = settings.include_token_ids
    shown = result.alternatives if settings.options.num_alternatives > 1 else ()
    return pb.Translation(
        text=result.text,
        score=result.score,
        num_source_tokens=result.num_source_tokens,
        num_target_tokens=result.num_target_tokens,
        num_sentences=result.num_sentences,
        split=result.split,
        length_limited=result.length_limited,
        repetition_found=result.repetition_found,
        alternatives=[
            pb.Alternative(text=one.text, score=one.score, token_ids=one.token_ids if include_token_ids else ())
            for one in shown
        ],
        token_ids=result.alternatives[0].token_ids if include_token_ids else (),
        timings=pb.StageTimings(
            queue_s=result.timings.queue_s,
            encode_s=result.timings.encode_s,
            decode_s=result.timings.decode_s,
            prepare_s=result.timings.prepare_s,
            finish_s=result.timings.finish_s,
            align_s=result.timings.align_s,
        ),
        alignment=_links(result.alignment),
    )
