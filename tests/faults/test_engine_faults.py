"""A step that raises, gives NaN or hangs, in the launched process: what clients, probes and the exit code say."""

import asyncio

import grpc
import pytest

from service.pb import translation_pb2 as pb
from tests.faults.calls import Caller, codes
from tests.faults.conftest import TEXTS
from tests.faults.faulty_server import SECRET
from tests.faults.server_process import ServerProcess

pytestmark = pytest.mark.integration
ALIVE = ""
ONE_WORKER = ("--num-workers", "1", "--max-rows", "16")


@pytest.mark.parametrize("step", [1, pytest.param(5, marks=pytest.mark.faults)])
def test_a_step_that_raises_ends_the_process(step: int):
    """Decoding and waiting calls get INTERNAL without any internal text; the exit code asks for a restart."""

    async def check(server: ServerProcess) -> None:
        async with Caller(server.address) as caller:
            server.tell("close")
            calls = [asyncio.create_task(caller.translate(text)) for text in TEXTS * 3]
            await asyncio.to_thread(server.wait_for_sample, "dragoman_open_requests", len(calls))
            server.tell(f"fail {step}")
            server.tell("open")
            outcomes = await asyncio.gather(*calls)
        failed = [outcome for outcome in outcomes if outcome.code != "OK"]
        assert set(codes(failed)) == {"INTERNAL"}
        assert step > 1 or len(failed) == len(outcomes)
        assert not any(SECRET in outcome.details for outcome in outcomes)
        assert await asyncio.to_thread(server.wait) == 1

    with ServerProcess(*ONE_WORKER) as server:
        asyncio.run(check(server))
    assert any(SECRET in line.get("exception", "") for line in server.lines), "the log does not say why"


def test_a_process_that_must_be_started_again_is_not_alive(golden: dict[str, str]):
    """Both probes of liveness say so while a call that another thread still answers keeps the process from ending."""
    pair = pb.ScorePair(source=TEXTS[0], target=golden[TEXTS[0]])
    asked = pb.ScoreRequest(pairs=[pair], source_language="en", target_language="fr")

    async def check(server: ServerProcess) -> None:
        async with Caller(server.address) as caller:
            assert (await caller.health(ALIVE), server.page("livez")[0]) == ("SERVING", 200)
            server.tell("close score")
            patient = caller.stub.Score(asked, timeout=60)
            await asyncio.to_thread(server.wait_for_word, "at gate")
            server.tell("fail 1")
            assert (await caller.translate(TEXTS[0])).code == "INTERNAL"
            await caller.wait_for_health("NOT_SERVING", ALIVE)
            assert (server.page("readyz")[0], server.page("livez")[0]) == (503, 503)
            server.tell("open")
            assert (await patient).results[0].score.score < 0
        assert await asyncio.to_thread(server.wait) == 1

    with ServerProcess(*ONE_WORKER) as server:
        asyncio.run(check(server))


def test_a_row_that_gives_nan_fails_alone(golden: dict[str, str]):
    async def check(server: ServerProcess) -> None:
        base = server.census()
        async with Caller(server.address) as caller:
            server.tell("close")
            calls = [asyncio.create_task(caller.translate(text)) for text in TEXTS]
            await asyncio.to_thread(server.wait_for_sample, "dragoman_open_requests", len(calls))
            server.tell("poison 0")
            server.tell("open")
            outcomes = await asyncio.gather(*calls)
            assert codes(outcomes) == {"OK": len(TEXTS) - 1, "INTERNAL": 1}
            for text, outcome in zip(TEXTS, outcomes, strict=True):
                assert outcome.code == "INTERNAL" or outcome.texts == (golden[text],)
            again = await caller.translate_each(TEXTS)
            assert [outcome.texts for outcome in again] == [(golden[text],) for text in TEXTS]
        server.wait_for_rest(base)

    with ServerProcess(*ONE_WORKER) as server:
        asyncio.run(check(server))
        assert server.stop() == 0


def test_a_step_that_hangs_turns_health_and_deadlines_are_kept(golden: dict[str, str]):
    """Calls with a deadline are answered by then, new ones are refused; when the step ends, all is as before."""

    async def check(server: ServerProcess) -> None:
        base = server.census()
        async with Caller(server.address) as caller:
            server.tell("close")
            patient = asyncio.create_task(caller.translate(TEXTS[0]))
            await asyncio.to_thread(server.wait_for_word, "at gate")
            late = await caller.translate(TEXTS[1], timeout_s=0.2)
            assert late.code == "DEADLINE_EXCEEDED"
            server.wait_for_sample(
                "dragoman_open_requests", 1
            )  # the client ends its call by itself; so does the server
            await caller.wait_for_health("NOT_SERVING")
            assert (server.page("readyz")[0], server.page("livez")[0]) == (503, 200)
            refused = await caller.translate(TEXTS[2])
            assert (refused.code, refused.reason, refused.retry_ms) == ("UNAVAILABLE", "NOT_SERVING", "100")
            server.tell("open")
            assert (await patient).texts == (golden[TEXTS[0]],)
            await caller.wait_for_health("SERVING")
            assert (await caller.translate(TEXTS[2])).texts == (golden[TEXTS[2]],)
        server.wait_for_rest(base)

    with ServerProcess(*ONE_WORKER, "--max-step-s", "0.5") as server:
        asyncio.run(check(server))
        assert server.stop() == 0


@pytest.mark.parametrize("is_alignment", [False, pytest.param(True, marks=pytest.mark.faults)])
def test_a_score_run_that_hangs_turns_health_and_deadlines_are_kept(golden: dict[str, str], is_alignment: bool):
    """Given translations, and alignments of translations, are scored on a thread of their own: it is watched too."""
    pair = pb.ScorePair(source=TEXTS[0], target=golden[TEXTS[0]])
    asked = pb.ScoreRequest(pairs=[pair], source_language="en", target_language="fr")

    async def check(server: ServerProcess) -> None:
        base = server.census()
        async with Caller(server.address) as caller:
            right = await caller.stub.Score(asked, timeout=60)
            server.tell("close score")
            if is_alignment:
                patient = asyncio.create_task(caller.translate(TEXTS[0], include_alignment=True))
            else:
                patient = caller.stub.Score(asked, timeout=60)
            await asyncio.to_thread(server.wait_for_word, "at gate")
            with pytest.raises(grpc.aio.AioRpcError) as late:
                await caller.stub.Score(asked, timeout=0.2)
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await caller.wait_for_health("NOT_SERVING")
            assert (server.page("readyz")[0], server.page("livez")[0]) == (503, 200)
            refused = await caller.translate(TEXTS[2])
            assert (refused.code, refused.reason) == ("UNAVAILABLE", "NOT_SERVING")
            server.tell("open")
            answer = await patient
            assert answer.texts == (golden[TEXTS[0]],) if is_alignment else answer.results[0].score.score < 0
            await caller.wait_for_health("SERVING")
            again = await caller.stub.Score(asked, timeout=60)
            assert again.results[0].score.log_probability == right.results[0].score.log_probability
        server.wait_for_rest(base)

    with ServerProcess(*ONE_WORKER, "--max-step-s", "0.5") as server:
        asyncio.run(check(server))
        assert server.stop() == 0


def test_a_step_that_hangs_for_good_ends_the_process():
    """What waits without a deadline gets UNAVAILABLE, and the process ends although its thread cannot."""

    async def check(server: ServerProcess) -> None:
        async with Caller(server.address) as caller:
            server.tell("close")
            calls = [asyncio.create_task(caller.translate(text)) for text in TEXTS * 3]
            await asyncio.to_thread(server.wait_for_word, "at gate")
            outcomes = await asyncio.gather(*calls)
        assert {(outcome.code, outcome.reason) for outcome in outcomes} == {("UNAVAILABLE", "DRAINING")}
        assert await asyncio.to_thread(server.wait) == 1

    with ServerProcess(*ONE_WORKER, "--max-step-s", "0.3", "--max-stuck-s", "0.6") as server:
        asyncio.run(check(server))
