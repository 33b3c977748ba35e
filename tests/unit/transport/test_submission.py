"""Which thread splits and tokenizes: the event loop itself only what takes it no time."""

import pytest

from tests.unit.transport.running_server import Running, request, with_server


def test_texts_too_long_for_the_event_loop_go_the_same_way():
    async def check(server: Running) -> None:
        long_text = "word " * 2_000
        response = await server.stub.Translate(request(long_text))
        assert response.results[0].translation.text == long_text.upper()

    with_server(check)


@pytest.mark.parametrize("texts", [["word " * 2_000], [""] * 1_000])
def test_what_takes_long_to_submit_leaves_the_event_loop_free(texts: list[str]):
    async def check(server: Running) -> None:
        await server.stub.Translate(request(*texts))
        await server.stub.Translate(request("short"))
        assert [name.split("_")[0] for name in server.translator.submitters] == ["submit", "MainThread"]

    with_server(check)
