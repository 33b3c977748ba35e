"""Bytes that are no requests: malformed messages, other protocols, connections that say nothing."""

import asyncio
import random
import socket
from collections import Counter

import grpc
import pytest

from service.errors import STATUS
from service.pb import translation_pb2 as pb
from tests.faults.calls import Caller, reason_of, request
from tests.faults.conftest import TEXTS
from tests.faults.server_process import PLAIN, ServerProcess

pytestmark = pytest.mark.integration
UNARY = ("Translate", "Score", "ListModels")
DOCUMENTED = {name for name, _ in STATUS.values()} | {"OK", "UNIMPLEMENTED"}
REASONS = {reason for _, reason in STATUS.values()}
# What no message for a client may hold.
LEAKS = ("Traceback", "Exception", "Error(", 'File "', ".py", "0x")
AT_ONCE = 64
STREAM = (
    pb.TranslateStreamRequest(config=pb.StreamConfig(source_language="en", target_language="fr")).SerializeToString(),
    pb.TranslateStreamRequest(text=pb.StreamText(id="1", text="No.")).SerializeToString(),
)


@pytest.fixture(scope="module")
def server():
    with ServerProcess("--log-level", "info", program=PLAIN) as started:
        yield started
        assert started.stop() == 0


def valid(rng: random.Random) -> bytes:
    """A request that is well formed and in range, so that small damage reaches far."""
    options = pb.DecodeOptions(num_beams=rng.choice([1, 2]), length_penalty=rng.random(), max_length=4)
    texts = [rng.choice(["No.", "", " ", "\u00e9t\u00e9", "\U0001f600"]) for _ in range(rng.randrange(1, 4))]
    return request(*texts, options=options, request_id="r", model="").SerializeToString()


def damaged(rng: random.Random) -> bytes:
    """A payload that is malformed, or by chance well formed and out of range, or by chance valid."""
    payload = bytearray(valid(rng))
    kind = rng.randrange(7)
    if kind == 0:
        return rng.randbytes(rng.randrange(0, 200))
    if kind == 1:
        return bytes(payload[: rng.randrange(len(payload))])
    if kind == 2:  # flipped bits
        for _ in range(rng.randrange(1, 8)):
            payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)
    elif kind == 3:  # a field of another wire type
        payload += bytes([rng.randrange(1, 16) << 3 | rng.randrange(8)]) + rng.randbytes(rng.randrange(12))
    elif kind == 4:  # a length that promises more than there is
        payload += bytes([rng.randrange(1, 16) << 3 | 2, 255, 255, 255, 255, rng.randrange(256)])
    elif kind == 5:  # groups within groups
        payload += bytes([0x0B | rng.randrange(16) << 3]) * rng.randrange(1, 300)
    else:  # spliced
        payload[rng.randrange(len(payload)) :] = valid(rng)[rng.randrange(20) :]
    return bytes(payload)


async def outcome_of_payload(caller: Caller, rng: random.Random) -> tuple[str, str, str]:
    """Code, reason and message of one damaged call."""
    channel, payload = caller.channels[rng.randrange(len(caller.channels))], damaged(rng)
    method = rng.choice((*UNARY, "TranslateStream", "TranslateStream", "Translate", "Translate"))
    path = f"/dragoman.v1.TranslationService/{method}"
    try:
        if method == "TranslateStream":
            messages = [*STREAM[: rng.randrange(3)], payload]
            async for _ in channel.stream_stream(path)(iter(messages), timeout=60):
                pass
        else:
            await channel.unary_unary(path)(payload, timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code().name, reason_of(error), error.details() or ""
    return "OK", "", ""


@pytest.mark.parametrize(
    ("count", "seed"),
    [(5_000, 1), pytest.param(50_000, 2, marks=[pytest.mark.faults, pytest.mark.timeout(600)])],
)
def test_malformed_payloads_get_documented_codes(server: ServerProcess, golden: dict[str, str], count: int, seed: int):
    async def check() -> Counter[str]:
        rng, found, left = random.Random(seed), Counter[str](), count
        async with Caller(server.address, 4) as caller:

            async def some() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    code, reason, message = await outcome_of_payload(caller, rng)
                    found[code] += 1
                    assert code in ("OK", "UNIMPLEMENTED") or reason in REASONS, (code, reason, message)
                    assert not any(leak in message for leak in LEAKS), message

            await asyncio.gather(*(some() for _ in range(AT_ONCE)))
            again = await caller.translate_each(TEXTS)
            assert [outcome.texts for outcome in again] == [(golden[text],) for text in TEXTS]
        return found

    base = server.census()
    found = asyncio.run(check())
    assert found.total() == count
    assert set(found) <= DOCUMENTED - {"INTERNAL", "UNAVAILABLE"}, found
    assert found["INVALID_ARGUMENT"] > count / 4
    assert found["OK"] > 0
    server.wait_for_rest(base)


@pytest.mark.parametrize("count", [20, pytest.param(500, marks=pytest.mark.faults)])
def test_strangers_on_the_port(server: ServerProcess, golden: dict[str, str], count: int):
    """Garbage, HTTP/1, a preface without a word, and silence, while calls go on; then all of them are gone."""
    rng = random.Random(count)
    host, _, port = server.address.partition(":")
    words = (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"", b"\x16\x03\x01\x02\x00")

    async def still_right() -> None:
        async with Caller(server.address) as caller:
            outcomes = await caller.translate_each(TEXTS)
        assert [outcome.texts for outcome in outcomes] == [(golden[text],) for text in TEXTS]

    base = server.census()
    strangers = [socket.create_connection((host, int(port))) for _ in range(count)]
    for number, stranger in enumerate(strangers):
        stranger.sendall(words[number % 5] if number % 5 < len(words) else rng.randbytes(rng.randrange(1, 5_000)))
    asyncio.run(still_right())
    for stranger in strangers:
        stranger.close()
    server.wait_for_rest(base)
    asyncio.run(still_right())
