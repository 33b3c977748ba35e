"""For a minute, or for thirty: everything that clients do, right and wrong, at once; nothing grows, nothing is lost.

The time is `--soak-s`, after a warm-up by number: buffers have to grow to the largest batch, and arenas to fill.
"""

import asyncio
import random
import socket
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import grpc
import pytest

from service.pb import translation_pb2 as pb
from tests.faults.calls import Caller, request
from tests.faults.conftest import TEXTS
from tests.faults.server_process import ServerProcess
from tests.faults.test_hostile_bytes import DOCUMENTED, REASONS, outcome_of_payload
from tests.faults.test_hostile_texts import BLANK, STRANGE

pytestmark = pytest.mark.integration
FLAGS = ("--num-workers", "1", "--max-rows", "32", "--max-delay-s", "2", "--max-stream-texts", "16")
NUM_CLIENTS = 6
MAX_SLOPE_BYTES_PER_MIN = 2**20
# The heap rises and falls by so much; in a run of less than ten minutes it is added to what may grow.
BREATH_BYTES, LONG_S = 32 * 2**20, 600.0
NUM_WARM_UP = 600  # deeds; in 200 s memory rose from 146 to 232 MiB in the first minute, and fell to 208 after
NUM_WINDOWS = 12
CONFIG = pb.TranslateStreamRequest(
    config=pb.StreamConfig(source_language="en", target_language="fr", options=pb.DecodeOptions(num_beams=1))
)
Deed = Callable[[Caller, random.Random], Awaitable[str]]


class Soak:
    """One run: what was done, what came of it, and the goldens that every valid answer is held against."""

    def __init__(self, server: ServerProcess, golden: dict[str, str]) -> None:
        self.server, self.golden = server, golden
        self.found: Counter[str] = Counter()
        # Deed, weight, and the outcomes it may have. Overload and the poisoned row can meet any valid call.
        self.deeds: list[tuple[Deed, int, set[str]]] = [
            (self.right, 12, {"OK", "RESOURCE_EXHAUSTED", "INTERNAL"}),
            (self.wide, 4, {"OK", "RESOURCE_EXHAUSTED", "INTERNAL"}),
            (self.stream, 4, {"OK"}),
            (self.cancelled, 4, {"OK", "CANCELLED", "RESOURCE_EXHAUSTED", "INTERNAL"}),
            (self.late, 4, {"OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL"}),
            (self.malformed, 6, DOCUMENTED - {"UNAVAILABLE"}),
            (self.strange, 3, {"OK", "RESOURCE_EXHAUSTED", "INTERNAL"}),
            (self.too_much, 1, {"INVALID_ARGUMENT"}),
            (self.stopped_reader, 1, {"LEFT"}),
            (self.burst, 1, {"OK"}),
            (self.stranger, 2, {"LEFT"}),
            (self.poison, 1, {"LEFT"}),
        ]
        self.num_poisoned = 0

    async def warm_up(self) -> None:
        """All clients do their share of so many deeds, then ask for the most at once."""
        end = self.found.total() + NUM_WARM_UP
        await asyncio.gather(*(self.client(-1 - n, lambda: self.found.total() >= end) for n in range(NUM_CLIENTS)))
        async with Caller(self.server.address, NUM_CLIENTS) as caller:
            for num_beams in (1, 4):
                await caller.translate_each(TEXTS * 20, num_beams=num_beams)
            await caller.translate_each(["b" * 300_000] * NUM_CLIENTS)

    async def client(self, number: int, is_over: Callable[[], bool]) -> None:
        rng = random.Random(number)
        deeds, weights = [deed for deed, _, _ in self.deeds], [weight for _, weight, _ in self.deeds]
        allowed = {deed: outcomes for deed, _, outcomes in self.deeds}
        while not is_over():
            async with Caller(self.server.address) as caller:
                for _ in range(20):  # then over a new connection
                    if is_over():
                        return
                    [deed] = rng.choices(deeds, weights)
                    outcome = await deed(caller, rng)
                    assert outcome in allowed[deed], f"{deed.__name__}: {outcome}"
                    self.found[f"{deed.__name__} {outcome}"] += 1

    async def right(self, caller: Caller, rng: random.Random) -> str:
        texts = rng.choices(TEXTS, k=rng.randrange(1, 4))
        outcome = await caller.translate(*texts)
        for text, translation in zip(texts, outcome.texts, strict=False):
            assert translation in (self.golden[text], ""), text  # empty: this text alone met the poisoned row
        return outcome.code

    async def wide(self, caller: Caller, rng: random.Random) -> str:
        return (await caller.translate(rng.choice(TEXTS), num_beams=rng.randrange(2, 5))).code

    async def stream(self, caller: Caller, rng: random.Random) -> str:
        texts = {str(number): rng.choice(TEXTS) for number in range(rng.randrange(1, 40))}
        items = [pb.TranslateStreamRequest(text=pb.StreamText(id=name, text=text)) for name, text in texts.items()]
        answered: Counter[str] = Counter()
        async for response in caller.stub.TranslateStream(iter([CONFIG, *items]), timeout=60):
            answered[response.id] += 1
            if response.result.HasField("translation"):
                assert response.result.translation.text == self.golden[texts[response.id]]
            else:
                assert response.result.error.reason == "INTERNAL"
        assert answered == dict.fromkeys(texts, 1)
        return "OK"

    async def cancelled(self, caller: Caller, rng: random.Random) -> str:
        call = caller.stub.Translate(request(rng.choice(TEXTS)))
        await asyncio.sleep(rng.random() * 0.05)
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            return "CANCELLED"
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    async def late(self, caller: Caller, rng: random.Random) -> str:
        return (await caller.translate(*TEXTS, timeout_s=rng.random() * 0.1)).code

    async def malformed(self, caller: Caller, rng: random.Random) -> str:
        code, reason, message = await outcome_of_payload(caller, rng)
        assert code in ("OK", "UNIMPLEMENTED") or reason in REASONS, (code, reason, message)
        return code

    async def strange(self, caller: Caller, rng: random.Random) -> str:
        texts = rng.choices(STRANGE + BLANK, k=2)
        outcome = await caller.translate(*texts)
        assert outcome.code != "OK" or len(outcome.texts) == 2
        return outcome.code

    async def too_much(self, caller: Caller, rng: random.Random) -> str:
        return (await caller.translate("b" * rng.randrange(100_001, 300_000))).code

    async def stopped_reader(self, caller: Caller, rng: random.Random) -> str:
        call = caller.stub.TranslateStream()
        await call.write(CONFIG)
        for number in range(10):
            await call.write(pb.TranslateStreamRequest(text=pb.StreamText(id=str(number), text=rng.choice(TEXTS))))
        await asyncio.sleep(rng.random() * 0.5)
        call.cancel()
        return "LEFT"

    async def burst(self, caller: Caller, rng: random.Random) -> str:
        """More at once than can be answered in time: each call is answered, or told when to come again."""
        outcomes = await caller.translate_each(rng.choices(TEXTS, k=150))
        assert {outcome.code for outcome in outcomes} <= {"OK", "RESOURCE_EXHAUSTED", "INTERNAL"}
        assert all(outcome.retry_ms for outcome in outcomes if outcome.code == "RESOURCE_EXHAUSTED")
        return "OK"

    async def stranger(self, caller: Caller, rng: random.Random) -> str:
        host, _, port = self.server.address.partition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(rng.choice([b"GET / HTTP/1.1\r\n\r\n", rng.randbytes(200), b""]))
            await asyncio.sleep(rng.random() * 0.2)
        return "LEFT"

    async def poison(self, caller: Caller, rng: random.Random) -> str:
        if rng.random() < 0.2:
            self.num_poisoned += 1
            await asyncio.to_thread(self.server.tell, "poison 0")
        return "LEFT"


def slope(samples: list[tuple[float, int]]) -> float:
    """Bytes a minute: the median slope (Theil and Sen) between the least values of windows of (seconds, bytes).

    What is allocated for a moment is in no window's least value; what is never given back is in all that follow.
    """
    length = -(-len(samples) // NUM_WINDOWS)
    windows = [samples[start : start + length] for start in range(0, len(samples), length)]
    least = [min(window, key=lambda sample: sample[1]) for window in windows]
    pairs = [(b, a) for place, b in enumerate(least) for a in least[:place] if b[0] > a[0]]
    return 60 * statistics.median((b[1] - a[1]) / (b[0] - a[0]) for b, a in pairs)


def test_a_leak_is_told_from_moments():
    leak = [(float(t), 1000 * t + (t % 7 == 0) * 10**6) for t in range(1, 600)]
    assert slope(leak) == pytest.approx(60_000, rel=0.01)
    assert slope([(float(t), 10**8 + (t % 7) * 10**6) for t in range(1, 600)]) == 0


async def soak(server: ServerProcess, run: Soak, duration_s: float) -> list[tuple[float, int]]:
    """Runs all clients; returns the server's memory over time."""
    samples: list[tuple[float, int]] = []
    started = time.monotonic()

    def is_over() -> bool:
        return time.monotonic() >= started + duration_s

    clients = [asyncio.create_task(run.client(number, is_over)) for number in range(NUM_CLIENTS)]
    while not all(client.done() for client in clients):
        samples.append((time.monotonic() - started, server.resident_bytes()))
        await asyncio.wait(clients, timeout=0.25)
        for client in clients:
            if client.done():
                client.result()
    return samples


def check_soak(golden: dict[str, str], duration_s: float, is_warmed_up: bool) -> float:
    """A whole run with its closing assertions; returns the slope of its memory."""
    with ServerProcess(*FLAGS, "--log-level", "info") as server:
        base = server.census()
        run = Soak(server, golden)
        if is_warmed_up:
            asyncio.run(run.warm_up())
        samples = asyncio.run(soak(server, run, duration_s))
        server.wait_for_rest(base)
        num_internal = sum(line.get("code") == "INTERNAL" for line in server.lines if line["message"] == "call")
        assert num_internal <= run.num_poisoned
        assert server.stop() == 0
    grows = slope(samples)
    print(f"\n{run.found.total()} deeds, memory {samples[0][1] / 2**20:.0f} MiB, {grows / 2**20:+.2f} MiB/min")
    for name, count in sorted(run.found.items()):
        print(f"{count:8} {name}")
    return grows


def test_a_short_soak(golden: dict[str, str]):
    check_soak(golden, 3.0, is_warmed_up=False)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_soak(golden: dict[str, str], request: pytest.FixtureRequest):
    duration_s = float(request.config.getoption("--soak-s"))
    breath = BREATH_BYTES * 60 / duration_s if duration_s < LONG_S else 0.0
    assert check_soak(golden, duration_s, is_warmed_up=True) <= MAX_SLOPE_BYTES_PER_MIN + breath
