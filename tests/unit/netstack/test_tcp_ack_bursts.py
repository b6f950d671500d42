"""Several plain acknowledgements in one burst: what the newest says counts."""

from __future__ import annotations

from tcp_script import MASK, Script


def test_a_window_that_shrinks_and_opens_again_within_a_burst() -> None:
    script = Script()
    connection = script.connect(scale=0)
    connection.write(bytes(5000), script.now)
    script.take(script.out())
    before = connection.sender.window
    assert before == 60_000
    script.give(script.segment(window=100), script.segment(window=before))
    assert connection.sender.una & MASK == script.ack
    assert connection.sender.window == before
    script.give(script.segment(window=300), script.segment(window=200))
    assert connection.sender.window == 200
