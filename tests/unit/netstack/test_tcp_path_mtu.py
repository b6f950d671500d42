"""The size of segments: what is believed about it, of whom, for how long, and how it is found again."""

from __future__ import annotations

import random

from tcp_script import MASK, PEER, PORT, US, Script

from minivpn_trio.errors import DropReason
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import ACK, SYN, IcmpMessage, TcpSegment, UdpDatagram
from minivpn_trio.netstack.pmtu import LargeSends, PathMtus
from minivpn_trio.netstack.stack import Stack
from minivpn_trio.netstack.tcp.connection import TcpConnection
from minivpn_trio.netstack.tcp.scoreboard import Scoreboard
from minivpn_trio.netstack.tcp.sent_segment import SentSegment
from minivpn_trio.netstack.tcp.settings import TcpSettings
from minivpn_trio.netstack.udp import build_udp

QUICK = TcpSettings(path_probe_interval=5.0)
#: Payload of a full segment with timestamps.
FULL = 1448


def too_big(stack: Stack, quoted: bytes, mtu: int, now: float) -> None:
    stack.handle_packets([scapy_wire.build_icmp(IcmpMessage(PEER, US, 3, 4, mtu, quoted[:28]))], now)


def narrowed(script: Script, mtu: int = 1000, **options: bool) -> TcpConnection:
    """A connection that a router told of ``mtu``, with nothing in flight."""
    connection = script.connect(**options)
    connection.write(bytes(2 * FULL), script.now)
    packets = script.stack.take_output(100)
    too_big(script.stack, packets[0], mtu, script.now)
    script.take(script.out())
    script.give(script.segment())
    assert connection.sender.una == connection.sender.nxt
    assert connection.path_mss == mtu - 40
    return connection


def probing(script: Script, connection: TcpConnection, size: int = 60_000) -> list[TcpSegment]:
    """Wait until a larger segment is due, and write: what goes out, the probe first."""
    script.wait(6.0)
    connection.write(bytes(size), script.now)
    sent = script.out()
    assert len(sent[0].payload) > connection.sender.mss
    assert max(len(segment.payload) for segment in sent[1:]) == connection.sender.mss
    return sent


def drained(script: Script, connection: TcpConnection) -> int:
    """Acknowledge everything; the size of the largest segment."""
    largest = 0
    while sent := script.out():
        largest = max(largest, *(len(segment.payload) for segment in sent))
        script.ack = connection.sender.nxt & MASK
        script.give(script.segment())
    return largest


# --- probes ---


def test_a_probe_that_is_acknowledged_in_pieces_makes_no_segment_smaller() -> None:
    """A peer that acknowledged all but a byte of a probe, and then that byte, had everything in flight cut into
    segments of one byte each."""
    script = Script(settings=QUICK)
    connection = narrowed(script)
    probe = probing(script, connection)[0]
    assert len(probe.payload) == FULL
    for piece in (1, 700, FULL - 1):
        script.ack = (probe.seq + piece) & MASK
        script.give(script.segment())
        assert connection.path_mss == 960
        assert connection.sender.probe is not None
    script.ack = (probe.seq + FULL) & MASK
    script.give(script.segment())
    assert connection.path_mss == 1460
    assert connection.sender.mss == FULL
    assert len(connection.sender.board) <= 1 + (connection.sender.nxt - connection.sender.una) // 948
    assert script.stack.mtu_to(PEER) == 1500


def test_a_probe_does_not_outlive_the_size_that_it_was_for() -> None:
    """The tunnel's limit moves to just what the path was thought to take: the larger segment in flight says nothing."""
    script = Script(settings=QUICK)
    connection = narrowed(script)
    probe = probing(script, connection)[0]
    script.stack._mss = {4: 960, 16: 940}
    connection.set_path_mss(960)
    script.ack = (probe.seq + FULL) & MASK
    script.give(script.segment())
    assert connection.path_mss == 960
    assert max(segment.end - segment.start for segment in connection.sender.board) == 948


def test_a_lost_probe_is_sent_again_in_pieces_and_costs_no_window() -> None:
    script = Script(settings=QUICK)
    connection = narrowed(script)
    sent = probing(script, connection)
    window = connection.sender.congestion.window
    script.now += 0.02
    last = (sent[-1].seq + len(sent[-1].payload)) & MASK
    script.give(script.segment(sack_blocks=((sent[1].seq, last),)))
    script.wait(0.02)
    again = script.out()
    assert [(segment.seq, len(segment.payload)) for segment in again[:2]] == [
        (sent[0].seq, 948), ((sent[0].seq + 948) & MASK, FULL - 948),
    ]  # fmt: skip
    assert connection.sender.congestion.window >= window
    assert connection.path_mss == 960


def test_without_sack_a_lowered_size_is_tried_again_too() -> None:
    script = Script(settings=QUICK)
    connection = narrowed(script, sack=False)
    sent = probing(script, connection)
    script.take(sent)
    script.give(script.segment())
    assert connection.path_mss == 1460


def test_without_sack_three_duplicates_are_a_lost_probe_and_no_congestion() -> None:
    script = Script(settings=QUICK)
    connection = narrowed(script, sack=False)
    script.give(script.segment())
    sent = probing(script, connection)
    window = connection.sender.congestion.window
    for _ in range(3):
        script.give(script.segment())
    again = [segment for segment in script.out() if segment.seq == sent[0].seq or 0 < len(segment.payload) < 948]
    assert [(segment.seq, len(segment.payload)) for segment in again] == [
        (sent[0].seq, 948), ((sent[0].seq + 948) & MASK, FULL - 948),
    ]  # fmt: skip
    assert connection.sender.congestion.window >= window
    assert not connection.sender.in_recovery and not connection.sender.timeouts
    script.ack = (sent[-1].seq + len(sent[-1].payload)) & MASK
    script.give(script.segment())
    assert connection.path_mss == 960


def test_without_sack_a_probe_needs_enough_behind_it() -> None:
    script = Script(settings=QUICK)
    connection = narrowed(script, sack=False)
    script.wait(6.0)
    connection.write(bytes(FULL + 948), script.now)
    assert max(len(segment.payload) for segment in script.out()) == 948


# --- guesses ---


def guessed(script: Script) -> tuple[TcpConnection, list[TcpSegment]]:
    """Two timeouts with full segments, and a smaller one that is answered: what goes out then."""
    connection = script.connect()
    connection.write(bytes(60_000), script.now)
    while connection.sender.timeouts < 2:
        script.wait(0.05)
    assert max(len(segment.payload) for segment in script.out()) == FULL
    assert connection.path_mss == 1220
    script.ack = connection.sender.nxt & MASK
    script.give(script.segment())
    return connection, script.out()


def test_a_full_segment_follows_a_guess_at_once_and_ends_it() -> None:
    script = Script()
    connection, sent = guessed(script)
    assert (script.stack.mss_to(PEER), script.stack.mtu_to(PEER)) == (1220, 1500), "datagrams go by no guess"
    assert len(sent[0].payload) == FULL
    script.take(sent)
    script.give(script.segment())
    assert connection.path_mss == 1460
    assert script.stack.mss_to(PEER) == 1460


def test_three_lost_full_segments_make_a_guess_a_fact() -> None:
    script = Script()
    connection, sent = guessed(script)
    arrived: dict[int, int] = {}
    tried: list[float] = []

    def known() -> tuple[int, float]:
        mtu, expires, _, _ = script.stack._path_mtus._known[PEER]
        return mtu, expires - script.now

    while len(tried) < 4 and script.now < 5100:
        for segment in sent:
            if len(segment.payload) > 1208:
                # So far nobody knows more than for a minute.
                assert known()[0] == 1260 and (known()[1] <= 60 or len(tried) == 3)
                tried.append(script.now)
            else:
                arrived[segment.seq] = len(segment.payload)
        while script.ack in arrived:
            script.ack = (script.ack + arrived.pop(script.ack)) & MASK
        blocks = [((max(arrived), (max(arrived) + arrived[max(arrived)]) & MASK))] if arrived else []
        while blocks and (before := [seq for seq in arrived if seq + arrived[seq] == blocks[0][0]]):
            blocks = [(before[0], blocks[0][1])]
        script.now += 0.02
        script.give(script.segment(sack_blocks=tuple(blocks)))
        script.wait(0.01)
        connection.write(bytes(20_000), script.now)
        sent = script.out()
    assert tried[2] - tried[0] < 2.0, "at once, as long as it is but a guess"
    assert 9.0 < tried[3] - tried[2] < 12.0, "and then in search of what does pass"
    assert known()[0] == 1260 and known()[1] > 580
    assert connection.sender.timeouts == 2


def test_a_guess_is_forgotten_after_a_minute() -> None:
    script = Script()
    guessed(script)
    script.wait(59.0)
    assert (script.stack.mss_to(PEER), script.stack.mtu_to(PEER)) == (1220, 1500), "datagrams go by no guess"
    script.wait(2.0)
    later = script.stack.connect_tcp((PEER, 81), script.now)
    assert later.path_mss == 1460


def second(script: Script) -> TcpConnection:
    """Another connection to the same host."""
    script.out()
    connection = script.stack.connect_tcp((PEER, PORT), script.now)
    syn = script.one()
    assert syn.mss == 1460, "the link's, whatever is known of the path"
    script.port, script.seq, script.ack = syn.sport, 1_000_000, (syn.seq + 1) & MASK
    script.give(script.segment(SYN | ACK, mss=1460, window_scale=7, sack_permitted=True))
    script.seq += 1
    script.out()
    return connection


def test_a_new_connection_tries_at_once_what_is_but_a_guess() -> None:
    script = Script()
    guessed(script)
    connection = second(script)
    assert connection.path_mss == 1220
    script.wait(0.001)
    connection.write(bytes(20_000), script.now)
    sent = script.out()
    assert len(sent[0].payload) == FULL
    script.take(sent)
    script.give(script.segment())
    assert connection.path_mss == 1460
    assert script.stack.mss_to(PEER) == 1460


def test_short_connections_prove_it_together() -> None:
    """Each loses the larger segment of its first flight, and ends."""
    script = Script()
    first, _ = guessed(script)
    first.abort(script.now)
    for number in range(3):
        assert script.stack.mtu_to(PEER) == 1500, f"{number} are no proof"
        connection = second(script)
        script.wait(0.001)
        connection.write(bytes(1448 + 2 * 1208), script.now)
        probe, *rest = script.out()
        assert len(probe.payload) == FULL
        for segment in rest:
            edges = (rest[0].seq, (segment.seq + len(segment.payload)) & MASK)
            script.now += 0.01
            script.give(script.segment(sack_blocks=(edges,)))
        script.wait(0.05)
        again = script.out()
        assert again and max(len(segment.payload) for segment in again) == 1208
        script.ack = connection.sender.nxt & MASK
        script.give(script.segment())
        connection.abort(script.now)
    assert script.stack.mtu_to(PEER) == 1260
    assert second(script)._path_doubt == 0


def test_a_larger_segment_never_goes_without_something_behind_it() -> None:
    """Its loss would take a timeout, and count as one."""
    script = Script()
    guessed(script)
    connection = second(script)
    script.wait(0.001)
    connection.write(bytes(FULL), script.now)
    sent = script.out()
    assert [len(segment.payload) for segment in sent] == [1208, FULL - 1208]
    script.take(sent)
    script.give(script.segment())
    connection.write(bytes(FULL + 1208), script.now)
    assert [len(segment.payload) for segment in script.out()] == [FULL, 1208]


def test_an_idle_connection_does_not_ask_for_the_time_over_and_over() -> None:
    script = Script()
    guessed(script)
    connection = second(script)
    script.wait(1.0)
    assert connection.sender.probe_size
    script.wait(30.0)
    assert connection._path_probe_at - script.now > 500


def test_a_new_connection_tries_what_a_router_said_when_that_is_forgotten() -> None:
    """RFC 8201, 4: not within five minutes."""
    script = Script()
    narrowed(script, 1300)
    connection = second(script)
    assert connection.path_mss == 1260
    sizes = []
    for _ in range(13):
        connection.write(bytes(20_000), script.now)
        sent = script.out()
        sizes.append(max(len(segment.payload) for segment in sent))
        script.take(sent)
        script.give(script.segment())
        script.take(script.out())
        script.give(script.segment())
        script.wait(50.0)
    assert sizes == [1248] * 12 + [FULL]
    assert connection.path_mss == 1460


def test_a_closed_window_is_no_black_hole() -> None:
    """Its owner throws away what comes, and may do so without a word."""
    script = Script()
    connection = script.connect()
    connection.write(bytes(5 * FULL), script.now)
    script.out()
    script.give(script.segment(window=0))
    script.wait(3.0)
    assert connection.sender.timeouts > 2
    assert connection.path_mss == 1460


# --- what routers say ---


def test_one_routers_word_is_for_all_connections_to_that_host() -> None:
    script = Script()
    first = script.connect()
    ack = script.ack
    others = [second(script) for _ in range(2)]
    elsewhere = script.stack.connect_tcp((bytes((192, 0, 2, 9)), PORT), script.now)
    for connection in (first, *others):
        connection.write(bytes(3 * FULL), script.now)
    packets = script.stack.take_output(100)
    quoted = next(packet for packet in packets if int.from_bytes(packet[24:28], "big") == ack)
    assert len(quoted) == 1500
    too_big(script.stack, quoted, 1300, script.now)
    assert [connection.path_mss for connection in (first, *others)] == [1260] * 3
    assert elsewhere.path_mss == 1460
    again = script.out()
    assert sum(len(segment.payload) for segment in again) == 9 * FULL, "what was too large is not waited for"
    assert max(len(segment.payload) for segment in again) == 1248


def test_what_fits_is_not_sent_again() -> None:
    script = Script()
    connection = script.connect()
    connection.write(bytes(FULL), script.now)
    connection.write(bytes(500), script.now)
    packets = script.stack.take_output(100)
    assert [len(packet) for packet in packets] == [1500, 552]
    too_big(script.stack, packets[0], 1300, script.now)
    assert [len(segment.payload) for segment in script.out()] == [1248, 200]
    script.ack = (script.ack + FULL + 500) & MASK
    script.give(script.segment())
    assert connection.sender.una == connection.sender.nxt


def test_a_router_does_not_make_packets_larger() -> None:
    """RFC 8201, 4."""
    script = Script()
    connection = script.connect()
    connection.write(bytes(10 * FULL), script.now)
    (packet, *_) = script.stack.take_output(100)
    too_big(script.stack, packet, 1000, script.now)
    too_big(script.stack, packet, 1400, script.now)
    assert script.stack.mtu_to(PEER) == 1000
    assert connection.path_mss == 960


def test_what_a_router_says_of_a_probe_is_tried_next() -> None:
    """Also where nothing is known of the path any more."""
    script = Script(settings=QUICK)
    connection = narrowed(script)
    script.stack._path_mtus.clear()
    script.wait(6.0)
    connection.write(bytes(60_000), script.now)
    packets = script.stack.take_output(1000)
    assert len(packets[0]) == 1500
    too_big(script.stack, packets[0], 1371, script.now)
    assert connection.path_mss == 960
    script.now += 0.02
    start = int.from_bytes(packets[0][24:28], "big")
    script.give(script.segment(sack_blocks=(((start + FULL) & MASK, connection.sender.nxt & MASK),)))
    script.wait(0.02)
    assert drained(script, connection) == 948
    script.wait(5.5)
    connection.write(bytes(20_000), script.now)
    assert drained(script, connection) == 1331 - 12
    assert connection.path_mss == 1331


def test_a_routers_word_about_a_probe_needs_no_further_proof() -> None:
    """Without it a guess takes three lost ones of the full size."""
    script = Script()
    guessed(script)
    connection = second(script)
    script.wait(0.001)
    connection.write(bytes(20_000), script.now)
    packets = script.stack.take_output(1000)
    assert len(packets[0]) == 1500
    assert connection._path_doubt == 3
    too_big(script.stack, packets[0], 1371, script.now)
    assert (connection._path_doubt, connection._path_hint, connection._path_refused) == (0, 1331, 1460)
    assert script.stack.mtu_to(PEER) == 1371


def test_nobody_makes_segments_smaller_than_a_peer_could() -> None:
    script = Script()
    connection = script.connect()
    connection.write(bytes(20_000), script.now)
    script.out()
    for mss in (1, 0, -5):
        connection.set_path_mss(mss)
        assert connection.path_mss == 88
        assert len(connection.sender.board) <= 20_000 // 76 + 14


def test_pieces_are_never_too_many() -> None:
    board = Scoreboard()
    board.extend([SentSegment(0, 1448, bytes(1448), 0.0), SentSegment(1448, 2896, bytes(1448), 0.0)], 2896)
    for mss in (1, 0):
        board.resegment(mss)
        assert len(board) == 2 * -(-1448 // 16)
    assert b"".join(segment.payload for segment in board) == bytes(2896)


# --- datagrams ---


def test_an_unconnected_socket_hears_only_of_what_it_sent() -> None:
    """Whoever guessed the port of one could have packets to any host made small."""
    script = Script()
    stack = script.stack
    endpoint = stack.open_udp((US, 0))
    victim, other = bytes((192, 0, 2, 77)), bytes((192, 0, 2, 78))
    endpoint.sendto(bytes(1300), (other, 9))
    endpoint.sendto(bytes(600), (victim, 9))
    script.stack.take_output(100)

    def forge(remote: bytes, mtu: int) -> int:
        quoted = build_udp(UdpDatagram(US, remote, endpoint.local[1], 9, bytes(1300)))
        too_big(stack, quoted, mtu, script.now)
        return stack.mtu_to(remote)

    assert forge(bytes((192, 0, 2, 79)), 600) == 1500
    assert forge(victim, 628) == 1500, "nothing larger went there"
    assert forge(other, 1400) == 1500
    assert stack.drops[DropReason.NO_SOCKET] == 3
    assert forge(victim, 600) == 600
    assert forge(other, 1300) == 1300
    stack.connect_tcp((bytes((192, 0, 2, 79)), 80), script.now)
    assert script.one().mss == 1460


def test_an_echo_socket_hears_only_of_what_it_sent() -> None:
    script = Script()
    stack = script.stack
    pinger = stack.open_icmp()
    pinger.send_echo(PEER, 1, bytes(1300))
    (sent,) = stack.take_output(100)
    elsewhere = bytearray(sent)
    elsewhere[16:20] = bytes((192, 0, 2, 79))
    too_big(stack, bytes(elsewhere), 600, script.now)
    assert stack.mtu_to(bytes((192, 0, 2, 79))) == 1500 and pinger.take_error() is None
    too_big(stack, sent, 600, script.now)
    assert stack.mtu_to(PEER) == 600 and pinger.take_error() is not None


# --- tables ---


def test_large_sends_are_bounded() -> None:
    sends = LargeSends(most=3)
    hosts = [bytes((192, 0, 2, n)) for n in range(5)]
    for host in hosts:
        sends.note(host, 1400)
        sends.note(hosts[0], 1000)
    assert [sends.explain(host, 1200) for host in hosts] == [True, False, False, True, True]
    assert not sends.explain(hosts[0], 1400)
    sends.note(hosts[1], 552)
    assert not sends.explain(hosts[1], 0), "nobody is believed who calls that too large"


def test_what_is_known_of_paths_is_bounded_and_forgotten() -> None:
    known = PathMtus(lifetime=600.0, guess_lifetime=60.0, most=3)
    hosts = [bytes((192, 0, 2, n)) for n in range(4)]
    for host in hosts:
        assert known.learn(host, 1300, 0.0) == 1300
    assert [known.to(host, 1500, 1.0) for host in hosts] == [1500, 1300, 1300, 1300]
    assert known.learn(hosts[1], 1400, 1.0) == 1400
    assert known.to(hosts[1], 1500, 1.0) == 1300
    known.find(hosts[1], 1350, 1.0, sure=True)
    assert (known.to(hosts[1], 1500, 600.0), known.retry_at(hosts[1])) == (1350, 601.0)
    known.find(hosts[2], 1100, 1.0, sure=False)
    assert (known.to(hosts[2], 1500, 60.0), known.retry_at(hosts[2])) == (1100, 1.0)
    assert known.to(hosts[2], 1500, 61.0) == 1500
    known.forget(hosts[3])
    assert known.to(hosts[3], 1500, 1.0) == 1500
    assert known.learn(random.Random(1).randbytes(16), 68, 0.0) == 1280
