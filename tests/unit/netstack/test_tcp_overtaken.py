"""Acknowledgements that later ones have overtaken: PAWS refuses them, and yet they may say something."""

from __future__ import annotations

from tcp_script import MASK
from test_tcp_recovery import FULL, RTT, echo_of, flight, sack, seqs, settled

from minivpn_trio.netstack.packets import ACK, FIN, SYN


def test_the_duplicates_that_they_report_take_a_recovery_back() -> None:
    """RFC 3708: every retransmission of the episode comes back as a DSACK, behind an acknowledgement of later data."""
    script, connection = settled()
    sent = flight(script, connection, 10)
    window = connection.sender.congestion.window
    script.now += RTT
    sack(script, (sent[2], sent[9]))
    resent = script.out()
    assert seqs(resent) == [sent[0].seq, sent[1].seq]
    script.now += RTT
    script.ack = (sent[9].seq + FULL) & MASK
    later, clock = echo_of(resent[-1]), int(script.now * 1000)
    script.give(script.segment(timestamps=(clock, later)))
    for back, segment in ((2, sent[0]), (1, sent[1])):
        blocks = ((segment.seq, (segment.seq + FULL) & MASK),)
        script.give(script.segment(sack_blocks=blocks, timestamps=((clock - back) & MASK, later)))
    assert script.out() == []
    assert connection.sender.congestion.window >= window
    assert connection.sender.rack.reordering
    assert connection.timestamp_recent == clock & MASK


def test_what_they_acknowledge_selectively_counts() -> None:
    script, connection = settled()
    sent = flight(script, connection, 6)
    script.now += RTT
    clock = int(script.now * 1000)
    script.give(script.segment(timestamps=(clock & MASK, script.echo)))
    older = ((clock - 1) & MASK, script.echo)
    script.give(script.segment(sack_blocks=((sent[1].seq, sent[5].seq),), timestamps=older))
    assert connection.sender.board.sacked == 4
    assert seqs(script.out())[:1] == [sent[0].seq]


def test_their_window_and_their_clock_are_old() -> None:
    script, connection = settled()
    sent = flight(script, connection, 2)
    script.now += RTT
    clock = int(script.now * 1000)
    script.take(sent)
    script.give(script.segment(window=500, timestamps=(clock & MASK, script.echo)))
    sender = connection.sender
    before = (sender.una, sender.window, sender.wl1, sender.wl2, sender.max_window)
    heard = connection.timestamp_recent
    end = (sent[1].seq + FULL) & MASK
    for blocks in ((), ((sent[0].seq, end),)):
        for window in (0, 400, 60_000):
            older = ((clock - 1) & MASK, script.echo)
            script.give(script.segment(window=window, sack_blocks=blocks, timestamps=older))
            assert (sender.una, sender.window, sender.wl1, sender.wl2, sender.max_window) == before
            assert connection.timestamp_recent == heard
    assert script.out() == []


def test_whatever_else_is_empty_and_old_is_challenged_at_most() -> None:
    for kind in ("too old", "of more", "of nothing recent", "elsewhere", "SYN", "no ACK"):
        script, connection = settled()
        sent = flight(script, connection, 3)
        script.now += RTT
        clock = int(script.now * 1000)
        script.give(script.segment(timestamps=(clock & MASK, script.echo)))
        block = ((sent[1].seq, (sent[1].seq + FULL) & MASK),)
        odd = script.segment(sack_blocks=block, timestamps=((clock - 1) & MASK, script.echo))
        if kind == "too old":
            odd.timestamps = ((clock - 60_000) & MASK, script.echo)
        elif kind == "of more":
            odd.ack = (sent[0].seq + FULL) & MASK
        elif kind == "of nothing recent":
            odd.ack = (sent[0].seq - 10_000_000) & MASK
        elif kind == "elsewhere":
            odd.seq = (odd.seq + 1) & MASK
        else:
            odd.flags = SYN | ACK if kind == "SYN" else 0
        una = connection.sender.una
        for _ in range(20):
            script.give(odd)
        assert [answer.payload for answer in script.out()] == [b""], kind
        assert (connection.sender.una, connection.sender.board.sacked) == (una, 0)


def test_an_old_fin_is_answered() -> None:
    """It is no acknowledgement: its sender waits for one."""
    script, _ = settled()
    script.send(b"x")
    script.out()
    clock = int(script.now * 1000)
    script.give(*[script.segment(FIN | ACK, timestamps=((clock - 1) & MASK, script.echo))] * 2)
    assert script.one().ack == script.seq
