"""A peer whose window is closed: it lives, answers, and opens it again, or does not."""

from __future__ import annotations

import errno

from tcp_script import MASK, Script

from minivpn_trio.netstack.packets import ACK, FIN, RST
from minivpn_trio.netstack.tcp.connection import TcpConnection, TcpState
from minivpn_trio.netstack.tcp.settings import TcpSettings

FULL = 1448


def closed(script: Script, connection: TcpConnection, size: int) -> None:
    """The peer takes ``size`` bytes, and has no room for more."""
    connection.write(bytes(size), script.now)
    while sent := script.out():
        script.take(sent)
        script.now += 0.02
        script.give(script.segment(window=0 if connection.sender.unacknowledged == 0 else 60_000))
    script.give(script.segment(window=0))
    assert connection.sender.window == 0 and connection.sender.una == connection.sender.nxt


def test_a_fin_alone_needs_no_room() -> None:
    script = Script(settings=TcpSettings(receive_buffer=2000, receive_buffer_max=2000))
    connection = script.connect()
    script.send(bytes(1000))
    script.send(bytes(1000))
    assert script.out()[-1].window == 0
    script.send(b"", FIN | ACK)
    assert script.one().ack == script.seq
    assert connection.state is TcpState.CLOSE_WAIT
    assert len(connection.read(5000, script.now)) == 2000
    assert connection.eof


def test_a_fin_waits_for_the_window_and_follows_at_once() -> None:
    script = Script()
    connection = script.connect()
    closed(script, connection, 5000)
    connection.shutdown_write(script.now)
    for _ in range(400):
        script.wait(1)
        for probe in script.out():
            # An old number and nothing else, again and again.
            assert (probe.flags, probe.seq, probe.payload) == (ACK, (script.ack - 1) & MASK, b"")
            script.give(script.segment(window=0))
    assert connection.error is None
    script.give(script.segment(window=100))
    fin = script.one()
    assert (fin.flags, fin.seq) == (FIN | ACK, script.ack)


def test_a_window_taken_back_kills_nobody_and_opens_at_once() -> None:
    script = Script()
    connection = script.connect()
    connection.write(bytes(5 * FULL), script.now)
    sent = script.out()
    script.give(script.segment(window=0))
    script.out()
    answered = 0
    for _ in range(3000):
        script.wait(1)
        for _ in script.out():
            answered += 1
            script.give(script.segment(window=0))
    # More than it takes to give up on a peer that is silent.
    assert connection.error is None and answered > 20
    threshold = connection.sender.congestion.threshold
    assert threshold > 5 * FULL
    script.out()
    script.give(script.segment(window=60_000))
    again = script.out()
    assert again[0].seq == sent[0].seq and again[0].payload
    # And the timer starts afresh.
    assert connection.sender.deadline - script.now < 2


def test_a_silent_peer_with_a_closed_window_is_given_up() -> None:
    script = Script(settings=TcpSettings(data_retries=5))
    connection = script.connect()
    closed(script, connection, 5000)
    connection.write(b"x", script.now)
    script.wait(300)
    assert connection.error is not None and connection.error.errno == errno.ETIMEDOUT


def test_nobody_waits_for_ever_with_a_connection_that_nobody_holds() -> None:
    script = Script()
    connection = script.connect()
    closed(script, connection, 5000)
    connection.write(b"never read", script.now)
    connection.close(script.now)
    last = []
    for second in range(600):
        script.wait(1)
        if sent := script.out():
            last = sent
            if second < 110:
                assert not sent[-1].flags & RST
            script.give(script.segment(window=0))
    assert last[-1].flags & RST
    assert script.stack.stats().tcp_connections == 0


def test_who_talks_all_the_time_does_not_keep_us_from_a_small_window() -> None:
    """RFC 9293, 3.8.6.2.1: after a while what fits goes out. That while does not begin anew with each segment of a peer
    that repeats its window, in a layout of options that is rare."""
    script = Script()
    connection = script.connect()
    script.give(script.segment(window=4))
    assert connection.sender.window == 512
    connection.write(bytes(3000), script.now)
    assert script.out() == []
    script.timestamps = False
    sent = b""
    for _ in range(20):
        script.wait(0.05)
        script.give(script.segment(ACK, b"x", window=4))
        script.seq = (script.seq + 1) & MASK
        sent += b"".join(segment.payload for segment in script.out())
    assert sent[:512] == bytes(512)


def test_an_old_segment_says_nothing_of_the_window() -> None:
    """RFC 9293, 3.10.7.4 (SND.WL1): also when what came after it was plain data, of which only the payload was new."""
    script = Script()
    connection = script.connect()
    script.give(script.segment(window=1000))
    before = script.segment(window=0)
    for _ in range(3):
        script.give(script.segment(ACK, b"x" * 100, window=1000))
        script.seq = (script.seq + 100) & MASK
    script.give(before)
    assert connection.sender.window == 1000 << 7
    # Also behind a hole.
    script.seq = (script.seq + 100) & MASK
    old = script.segment(window=0)
    script.seq = (script.seq + 100) & MASK
    script.give(script.segment(ACK, b"x" * 100, window=1000))
    script.give(old)
    assert connection.sender.window == 1000 << 7
