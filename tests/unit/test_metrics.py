"""What an engine tells becomes metrics with orderly names."""

import re

from service.engine.observer import EngineObserver, SilentObserver
from service.metrics import Metrics
from tests.unit.transport.scripted_translator import model_info


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def drive(observer: EngineObserver) -> None:
    """Durations are powers of two, which add up exactly; each number comes once, so that none passes for another."""
    observer.queued(3, 40, 0.5)
    observer.dequeued(2**-7)
    observer.encoded(2, 30, 40, 2**-6)
    observer.encoded(0, 0, 0, 2**-10)
    observer.first_token(2**-5)
    observer.step(8, 0.125, 2**-8)
    observer.bucket(16, True, 2**-9)
    observer.bucket(16, False, 2**-9)
    observer.device_bytes(5000, 4000)
    observer.active_rows(7)
    observer.workers(2)
    observer.cache_bytes(1000)
    observer.finished("end_token", 10, 12)
    observer.finished("repetition", 1, 2)
    observer.rejected("queue_full")
    observer.cancelled("decoding")


GAUGES = {
    "dragoman_queue_sentences": 3,
    "dragoman_queue_tokens": 40,
    "dragoman_queue_oldest_seconds": 0.5,
    "dragoman_active_rows": 7,
    "dragoman_workers": 2,
    "dragoman_cache_bytes": 1000,
    "dragoman_device_memory_bytes{kind=planned}": 5000,
    "dragoman_device_memory_bytes{kind=used}": 4000,
}
OTHERS = {
    "dragoman_queue_duration_seconds_sum": 2**-7,
    "dragoman_queue_duration_seconds_count": 1,
    "dragoman_encoder_seconds_sum": 2**-6 + 2**-10,
    "dragoman_encoder_seconds_count": 2,
    "dragoman_encoder_padding_ratio_sum": 0.25,
    "dragoman_encoder_padding_ratio_count": 1,
    "dragoman_time_to_first_token_seconds_sum": 2**-5,
    "dragoman_time_to_first_token_seconds_count": 1,
    "dragoman_batch_rows_sum": 8,
    "dragoman_batch_rows_count": 1,
    "dragoman_batch_padding_ratio_sum": 0.125,
    "dragoman_batch_padding_ratio_count": 1,
    "dragoman_decoder_step_seconds_sum": 2**-8,
    "dragoman_decoder_step_seconds_count": 1,
    "dragoman_device_step_seconds_sum{rows=16}": 2**-8,
    "dragoman_device_step_seconds_count{rows=16}": 2,
    "dragoman_device_replays_total": 1,
    "dragoman_input_tokens_total": 11,
    "dragoman_output_tokens_total": 14,
    "dragoman_finished_total{reason=end_token}": 1,
    "dragoman_finished_total{reason=repetition}": 1,
    "dragoman_repetition_total": 1,
    "dragoman_rejected_total{reason=queue_full}": 1,
    "dragoman_cancelled_total{stage=decoding}": 1,
}


def engine_samples(metrics: Metrics) -> dict[str, float]:
    """Every sample that is not 0, by name and labels; without buckets, the process, the build."""
    found = {}
    for sample in (sample for family in metrics.registry.collect() for sample in family.samples):
        labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
        found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return {
        name: number
        for name, number in found.items()
        if number and "_bucket{" not in name and not name.startswith(("process_", "dragoman_build_info"))
    }


def test_what_an_engine_tells_is_counted():
    metrics = Metrics()
    observer = metrics.observer()
    drive(observer)
    assert engine_samples(metrics) == GAUGES | OTHERS
    observer.forget()
    assert engine_samples(metrics) == OTHERS, "what was counted stays, what it held goes"
    drive(SilentObserver())


def test_what_calls_tell_is_counted():
    metrics = Metrics()
    for _ in range(3):
        metrics.call_opened()
    metrics.call_closed("/Translate", "OK", 0.25)
    metrics.call_refused("texts")
    metrics.credentials_reloaded("clients", "taken")
    metrics.text_answered("translated", split=True)
    metrics.text_answered("translated", split=False)
    metrics.ready(True)
    assert engine_samples(metrics) == {
        "dragoman_open_requests": 2,
        "dragoman_requests_total{method=/Translate,code=OK}": 1,
        "dragoman_request_duration_seconds_sum{method=/Translate}": 0.25,
        "dragoman_request_duration_seconds_count{method=/Translate}": 1,
        "dragoman_rejected_total{reason=texts}": 1,
        "dragoman_credential_reloads_total{kind=clients,outcome=taken}": 1,
        "dragoman_texts_total{outcome=translated}": 2,
        "dragoman_split_total": 1,
        "dragoman_ready": 1,
    }


def test_models_are_stated_with_the_seconds_that_they_took():
    metrics = Metrics()
    metrics.model_loaded(model_info(), 0.5)
    assert value(metrics, "dragoman_model_load_seconds", model="en-fr") == 0.5
    metrics.model_removed(model_info())
    assert engine_samples(metrics) == {"dragoman_model_load_seconds{model=en-fr}": 0.5}


def test_threads_of_several_models_do_not_add_up():
    """They share the processors: with one model at work, all of it is what that one has."""
    metrics = Metrics()
    first, second = metrics.observer(), metrics.observer()
    first.workers(2)
    second.workers(4)
    assert value(metrics, "dragoman_workers") == 4
    second.forget()
    assert value(metrics, "dragoman_workers") == 2
    first.forget()
    assert value(metrics, "dragoman_workers") == 0


def test_the_oldest_sentence_of_several_engines_is_no_older_for_that():
    metrics = Metrics()
    first, second = metrics.observer(), metrics.observer()
    first.queued(1, 5, 2.0)
    second.queued(1, 5, 3.0)
    assert value(metrics, "dragoman_queue_oldest_seconds") == 3.0
    second.queued(0, 0)
    assert value(metrics, "dragoman_queue_oldest_seconds") == 2.0
    first.forget()
    assert value(metrics, "dragoman_queue_oldest_seconds") == 0.0


def test_gauges_of_several_engines_add_up():
    metrics = Metrics()
    first, second = metrics.observer(), metrics.observer()
    first.active_rows(5)
    second.active_rows(3)
    first.active_rows(1)
    assert value(metrics, "dragoman_active_rows") == 4


def test_names_follow_the_conventions():
    metrics = Metrics()
    metrics.model_loaded(model_info(), 0.5)
    for family in metrics.registry.collect():
        assert re.fullmatch(r"(dragoman|process)_[a-z_]+", family.name), family.name
        assert family.documentation.endswith("."), family.name
        if family.type == "histogram" and "padding" not in family.name and family.name != "dragoman_batch_rows":
            assert family.name.endswith("_seconds"), family.name
    assert b'dragoman_model_info{device="cpu"' in metrics.render()
