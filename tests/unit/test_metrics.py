"""What an engine tells becomes metrics with orderly names."""

import re

from service.engine.observer import EngineObserver, SilentObserver
from service.metrics import Metrics
from tests.unit.transport.scripted_translator import model_info


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def drive(observer: EngineObserver) -> None:
    observer.queued(3, 40, 0.5)
    observer.dequeued(0.01)
    observer.encoded(2, 30, 40, 0.02)
    observer.first_token(0.03)
    observer.step(8, 0.25, 0.004)
    observer.active_rows(8)
    observer.workers(2)
    observer.cache_bytes(1000)
    observer.finished("end_token", 10, 12)
    observer.finished("repetition", 1, 2)
    observer.rejected("queue_full")
    observer.cancelled("decoding")


def test_what_an_engine_tells_is_counted():
    metrics = Metrics()
    drive(metrics.observer())
    assert value(metrics, "dragoman_workers") == 2
    assert value(metrics, "dragoman_queue_tokens") == 40
    assert value(metrics, "dragoman_encoder_padding_ratio_sum") == 0.25
    assert value(metrics, "dragoman_output_tokens_total") == 14
    assert value(metrics, "dragoman_finished_total", reason="end_token") == 1
    assert value(metrics, "dragoman_repetition_total") == 1
    assert value(metrics, "dragoman_rejected_total", reason="queue_full") == 1
    assert value(metrics, "dragoman_cancelled_total", stage="decoding") == 1
    drive(SilentObserver())


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
