"""What the cache of a job keeps, and what leaves it."""

import pytest

from service.jobs.outcome_cache import OutcomeCache, _size
from service.jobs.rows import Outcome

OUTCOME = Outcome("A")
ROOM = 3 * _size("a", OUTCOME)


def cache_of(texts: str) -> OutcomeCache:
    """With room for three of such texts."""
    cache = OutcomeCache(ROOM)
    for text in texts:
        cache.put(text, OUTCOME)
    return cache


def kept(cache: OutcomeCache, texts: str) -> str:
    return "".join(text for text in texts if cache.get(text) is not None)


@pytest.mark.parametrize(("texts", "expected"), [("", ""), ("abc", "abc"), ("abcd", "bcd"), ("abcdefgh", "fgh")])
def test_the_oldest_leaves_where_there_is_no_room(texts: str, expected: str) -> None:
    assert kept(cache_of(texts), texts) == expected


def test_what_was_asked_for_stays_longer() -> None:
    cache = cache_of("abc")
    assert cache.get("a") is OUTCOME
    cache.put("d", OUTCOME)
    assert kept(cache, "abcd") == "acd"


def test_a_text_that_is_there_keeps_its_outcome_and_is_counted_once() -> None:
    cache = cache_of("aaaa")
    cache.put("a", Outcome("another"))
    cache.put("b", OUTCOME)
    cache.put("c", OUTCOME)
    assert cache.get("a") is OUTCOME
    assert kept(cache, "abc") == "abc"


@pytest.mark.parametrize("outcome", [Outcome("x" * 400), Outcome("A", alternatives=(("x" * 400, -1.0),))])
def test_long_outcomes_need_more_room(outcome: Outcome) -> None:
    cache = cache_of("abc")
    cache.put("d", outcome)
    assert kept(cache, "abcd") == "cd"


def test_a_long_text_needs_more_room_and_one_that_never_fits_is_not_kept() -> None:
    cache = cache_of("abc")
    text = "x" * 400
    cache.put(text, OUTCOME)
    assert kept(cache, "abc") == "c"
    assert cache.get(text) is OUTCOME
    cache.put("y" * ROOM, OUTCOME)
    assert cache.get("y" * ROOM) is None
