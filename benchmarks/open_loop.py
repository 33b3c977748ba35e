"""A client that sends at the times it said it would, whatever the server does, and times from those times.

Knows: gRPC calls and clocks. Does not know: which server answers.

Waiting for an answer before sending the next (a closed loop) would slow the client down exactly when the server is
slow, and hide it. Latency counts from the intended time of sending: a late client does not flatter the server.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc

from service.pb import translation_pb2 as pb
from service.pb import translation_pb2_grpc as pb_grpc

# What too much load brings; any other failure means that something else than load was measured.
OF_LOAD = {grpc.StatusCode.RESOURCE_EXHAUSTED.name, grpc.StatusCode.DEADLINE_EXCEEDED.name}


@dataclass(slots=True)
class Outcome:
    """What became of one phase. latencies_s: of answered calls, refusals_s: of those refused because of too much load;
    both from the intended send time. errors: how many calls failed for each reason."""

    rate: float
    duration_s: float
    num_sent: int = 0
    latencies_s: list[float] = field(default_factory=list)
    refusals_s: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    late_s: list[float] = field(default_factory=list)

    def percentile_s(self, share: float) -> float:
        """The latency that ``share`` of all calls did not exceed; a call without an answer counts as infinite."""
        latencies = sorted(self.latencies_s)
        place = int(share * self.num_sent)
        return latencies[place] if place < len(latencies) else float("inf")

    def goodput(self, objective_s: float) -> float:
        """Calls a second that were answered within the objective."""
        return sum(latency <= objective_s for latency in self.latencies_s) / self.duration_s

    def add_error(self, name: str) -> None:
        self.errors[name] = self.errors.get(name, 0) + 1

    def failures(self) -> dict[str, int]:
        """Errors that load does not explain."""
        return {name: count for name, count in self.errors.items() if name not in OF_LOAD}


def arrivals(rate: float, duration_s: float, seed: int) -> list[float]:
    """Send times of a Poisson process, in seconds from the start."""
    rng, times, now = random.Random(seed), [], 0.0
    while (now := now + rng.expovariate(rate)) < duration_s:
        times.append(now)
    return times


class OpenLoop:
    """Sends one text a call on a few connections."""

    def __init__(self, address: str, num_beams: int, max_length: int, timeout_s: float, num_channels: int = 4) -> None:
        self.timeout_s = timeout_s
        # Each channel its own connection: equal ones are shared otherwise.
        self.channels = [grpc.aio.insecure_channel(address, options=[("bench", i)]) for i in range(num_channels)]
        self.stubs = [pb_grpc.TranslationServiceStub(channel) for channel in self.channels]  # type: ignore[no-untyped-call]
        self.options = pb.DecodeOptions(num_beams=num_beams, max_length=max_length)

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()

    async def phase(self, texts: Sequence[str], rate: float, duration_s: float, seed: int) -> Outcome:
        """Sends ``rate`` calls a second for ``duration_s`` and waits for the last answer."""
        rng = random.Random(seed + 1)
        outcome = Outcome(rate, duration_s)
        calls = []
        started = time.perf_counter() + 0.05
        for number, at in enumerate(arrivals(rate, duration_s, seed)):
            if (wait := started + at - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            calls.append(asyncio.create_task(self.call(rng.choice(texts), number, started + at, outcome)))
        await asyncio.gather(*calls)
        outcome.num_sent = len(calls)
        return outcome

    async def call(self, text: str, number: int, intended: float, outcome: Outcome) -> None:
        request = pb.TranslateRequest(texts=[text], source_language="en", target_language="fr", options=self.options)
        outcome.late_s.append(time.perf_counter() - intended)
        try:
            response = await self.stubs[number % len(self.stubs)].Translate(request, timeout=self.timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                outcome.refusals_s.append(time.perf_counter() - intended)
            outcome.add_error(error.code().name)
        else:
            [result] = response.results
            if result.WhichOneof("outcome") == "translation":
                outcome.latencies_s.append(time.perf_counter() - intended)
            else:
                outcome.add_error(f"text: {result.error.reason}")
