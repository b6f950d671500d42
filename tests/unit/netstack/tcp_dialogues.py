"""Dialogues with a TCP whose other end is the script, told once for two of them: ours and Linux's.

A ``Dialogue`` speaks raw segments as the remote side and commands the local one as an application would. What holds
for both is a scenario here; test_tcp_dialogues.py plays it with our stack on a counted clock, interop's
test_kernel_dialogues.py with the kernel in real time, which shows that the scenario itself is right.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import pytest

from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import ACK, FIN, PSH, RST, SYN, IcmpMessage, TcpSegment

MASK = 0xFFFFFFFF
#: Seconds after which whoever would answer at once has answered; less than a delayed acknowledgement.
AT_ONCE = 0.03


class Dialogue(ABC):
    """One connection between ``host`` (address of what is tested) and ``peer`` (the script's)."""

    #: The script's first port; each dialogue takes the next one.
    ports = iter(range(20_000, 60_000))

    def __init__(self, host: bytes, peer: bytes, *, mtu: int) -> None:
        self.host, self.peer, self.mtu = host, peer, mtu
        #: Ports of the script and of what is tested.
        self.sport, self.dport = next(self.ports), 0
        #: The script's next sequence number, and what it acknowledges; as on the wire.
        self.iss = 7_000_000
        self.seq, self.ack = self.iss, 0
        self.window = 60_000
        self.echo = 0
        #: Packets that came and that nobody listened to; ``take`` begins with them.
        self.pending: list[bytes] = []

    # --- of the two that are spoken to ---

    @property
    @abstractmethod
    def now(self) -> float: ...

    @abstractmethod
    def put(self, packet: bytes) -> None:
        """To the one that is tested."""

    @abstractmethod
    def take(self, seconds: float) -> list[bytes]:
        """TCP packets from it; at the latest after so many seconds, if nothing comes."""

    @abstractmethod
    def listen(self) -> None:
        """Its application waits at ``dport``, which is chosen."""

    @abstractmethod
    def accept(self) -> None:
        """Its application takes the connection."""

    @abstractmethod
    def connect(self) -> None:
        """Its application dials ``sport`` of the script; does not wait."""

    @abstractmethod
    def write(self, data: bytes) -> None: ...

    @abstractmethod
    def read(self) -> bytes | None:
        """What is there; b"" at the end, None if there is nothing yet. Raises OSError."""

    @abstractmethod
    def shutdown(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    # --- the script's words ---

    def segment(self, flags: int = ACK, payload: bytes = b"", **changes: object) -> TcpSegment:
        segment = TcpSegment(
            self.peer, self.host, self.sport, self.dport, self.seq, self.ack, flags, self.window, payload
        )
        if not flags & RST:
            segment.timestamps = (int(self.now * 1000) & MASK, self.echo)
        if not flags & ACK:
            segment.ack = 0
        return replace(segment, **changes)  # type: ignore[arg-type]

    def give(self, *segments: TcpSegment) -> None:
        for segment in segments:
            self.put(scapy_wire.build_tcp(segment))

    def send(self, payload: bytes, flags: int = ACK | PSH) -> None:
        """In order."""
        self.give(self.segment(flags, payload))
        self.seq = (self.seq + len(payload) + bool(flags & FIN)) & MASK

    def heard(self, seconds: float) -> list[TcpSegment]:
        """Segments for the script's port, when some come within ``seconds``."""
        segments = []
        for packet in self.take(seconds):
            assert len(packet) <= self.mtu
            parsed = scapy_wire.parse_untrusted(packet)
            assert isinstance(parsed, TcpSegment)
            if parsed.dport == self.sport:
                if parsed.timestamps is not None:
                    self.echo = parsed.timestamps[0]
                segments.append(parsed)
        return segments

    def all_heard(self, seconds: float = AT_ONCE) -> list[TcpSegment]:
        """Everything until nothing comes for so long."""
        segments: list[TcpSegment] = []
        while more := self.heard(seconds):
            segments += more
        return segments

    def until(self, wanted: Callable[[TcpSegment], object], limit: float = 1.0) -> TcpSegment:
        """The first segment that is ``wanted``; others are passed over."""
        end, others = self.now + limit, []
        while self.now < end:
            for segment in self.heard(min(0.02, end - self.now)):
                if wanted(segment):
                    return segment
                others.append(segment)
        raise AssertionError(f"only {others}")

    def quiet(self, seconds: float = 0.15) -> None:
        """Nothing comes."""
        end = self.now + seconds
        while self.now < end:
            assert self.heard(min(0.02, end - self.now)) == []

    def acknowledgement(self, limit: float = 1.0) -> TcpSegment:
        """The next pure one, which must be of everything that was sent."""
        segment = self.until(lambda segment: segment.flags == ACK and not segment.payload, limit)
        assert (segment.seq, segment.ack) == (self.ack, self.seq)
        return segment

    # --- what scenarios begin with ---

    def opened(self, *, active: bool = False) -> None:
        """A complete handshake, with every option."""
        if active:
            self.connect()
            syn = self.until(lambda segment: segment.flags & SYN)
            self.dport, self.ack = syn.sport, (syn.seq + 1) & MASK
            self.give(self.segment(SYN | ACK, mss=1460, window_scale=7, sack_permitted=True))
            self.seq = (self.seq + 1) & MASK
            self.window = 600
            self.acknowledgement()
            return
        self.listen()
        self.give(self.segment(SYN, mss=1460, window_scale=7, sack_permitted=True))
        answer = self.until(lambda segment: segment.flags == SYN | ACK)
        self.seq = (self.seq + 1) & MASK
        assert answer.ack == self.seq
        self.ack = (answer.seq + 1) & MASK
        self.window = 600
        self.give(self.segment())
        self.accept()

    def works(self) -> None:
        """Bytes pass both ways."""
        self.send(b"ping")
        self.gets(b"ping")
        self.write(b"pong")
        self.hears(b"pong")
        self.give(self.segment())
        self.all_heard()

    def gets(self, data: bytes) -> None:
        """The application reads ``data``; b"": the end."""
        received: bytes | None = None
        end = self.now + 1
        while (received is None or len(received) < len(data)) and self.now < end:
            more = self.read()
            if more is None:
                self.give_time()
            else:
                received = (received or b"") + more
        assert received == data

    def hears(self, data: bytes) -> None:
        """``data`` arrives in order."""
        received = b""
        while len(received) < len(data):
            segment = self.until(lambda segment: segment.payload)
            if segment.seq == self.ack:
                received += segment.payload
                self.ack = (self.ack + len(segment.payload)) & MASK
        assert received == data

    def fails(self, number: int) -> None:
        """The application's next reading fails so."""
        end = self.now + 1
        with pytest.raises(OSError) as caught:
            while self.now < end:
                assert self.read() is None
                self.give_time()
        assert caught.value.errno == number

    def give_time(self) -> None:
        """A little, without listening: what comes stays."""
        self.pending = self.take(0.005)

    def ends_with(self) -> TcpSegment:
        """Its FIN, counted as received."""
        fin = self.until(lambda segment: segment.flags & FIN)
        self.ack = (fin.seq + len(fin.payload) + 1) & MASK
        return fin


# --- scenarios ---


def a_closed_port_refuses(d: Dialogue) -> None:
    """RFC 9293, 3.10.7.1."""
    d.dport = 4444
    d.give(d.segment(SYN, mss=1460))
    reset = d.until(lambda segment: segment.flags & RST)
    assert (reset.flags, reset.seq, reset.ack) == (RST | ACK, 0, d.iss + 1)
    d.give(d.segment(ACK, b"data", ack=1234))
    reset = d.until(lambda segment: segment.flags & RST)
    assert (reset.flags, reset.seq) == (RST, 1234)
    d.give(d.segment(RST, seq=99), d.segment(RST | ACK, seq=99, ack=1))
    d.quiet()


def our_dialling_is_refused(d: Dialogue) -> None:
    d.connect()
    syn = d.until(lambda segment: segment.flags & SYN)
    d.dport = syn.sport
    # One that acknowledges something else is nobody's word.
    d.give(d.segment(RST | ACK, seq=0, ack=syn.seq + 2))
    # Linux asks again at once; nobody gives up.
    assert all(segment.flags == SYN and segment.seq == syn.seq for segment in d.all_heard(0.1))
    assert d.read() is None
    d.give(d.segment(RST | ACK, seq=0, ack=syn.seq + 1))
    d.fails(errno.ECONNREFUSED)


def a_reset_at_the_exact_number_resets(d: Dialogue) -> None:
    d.opened()
    d.works()
    d.give(d.segment(RST))
    d.fails(errno.ECONNRESET)
    d.give(d.segment(ACK, b"anybody?"))
    assert d.until(lambda segment: segment.flags & RST).seq == d.ack


def a_reset_elsewhere_in_the_window_is_challenged(d: Dialogue) -> None:
    """RFC 5961, 3.2."""
    d.opened()
    d.works()
    d.give(d.segment(RST, seq=d.seq + 100))
    d.acknowledgement()
    # Not each of them: half a second is for one.
    d.give(*(d.segment(RST, seq=d.seq + number) for number in range(1, 20)))
    d.quiet()
    d.works()


def a_reset_outside_of_the_window_is_nothing(d: Dialogue) -> None:
    d.opened()
    d.works()
    for distance in (-1, -1000, 1 << 30, 1 << 31):
        d.give(d.segment(RST, seq=(d.seq + distance) & MASK))
    d.quiet()
    d.works()


def a_syn_in_the_window_is_challenged(d: Dialogue) -> None:
    """RFC 5961, 4.2."""
    d.opened()
    d.works()
    d.give(d.segment(SYN, seq=d.seq + 10, mss=1460))
    d.acknowledgement()
    d.works()


def an_old_timestamp_is_an_old_segment(d: Dialogue) -> None:
    """RFC 7323, 5.3: not taken, but answered."""
    d.opened()
    d.works()
    d.send(b"newer")
    d.gets(b"newer")
    d.all_heard(0.06)
    d.give(d.segment(ACK | PSH, b"older", timestamps=((int(d.now * 1000) - 10_000) & MASK, d.echo)))
    d.acknowledgement()
    assert d.read() is None
    d.works()


def an_acknowledgement_that_was_overtaken_is_not_answered(d: Dialogue) -> None:
    """It is a little older than the last, empty and where the next byte is: reordering, no attack."""
    d.opened()
    d.works()
    d.write(b"x" * 100)
    d.hears(b"x" * 100)
    clock = int(d.now * 1000) + 6
    for back in (0, 1, 2, 3):
        d.give(d.segment(timestamps=((clock - back) & MASK, d.echo)))
    d.quiet()
    d.works()


def old_acknowledgements_are_answered_rarely(d: Dialogue) -> None:
    """Empty ones that PAWS refuses: two confused peers would answer each other for ever."""
    d.opened()
    d.works()
    for _ in range(10):
        d.give(d.segment(timestamps=((int(d.now * 1000) - 100_000) & MASK, d.echo)))
    assert len(d.all_heard()) == 1
    d.works()


def what_comes_twice_is_reported(d: Dialogue) -> None:
    """RFC 2883: the first block lies below the acknowledgement."""
    d.opened()
    d.works()
    at = d.seq
    d.send(b"x" * 100)
    d.gets(b"x" * 100)
    d.all_heard(0.06)
    d.give(d.segment(ACK | PSH, b"x" * 100, seq=at))
    answer = d.acknowledgement()
    assert answer.sack_blocks == ((at, at + 100),)
    d.works()


def what_comes_early_is_reported_newest_first(d: Dialogue) -> None:
    """RFC 2018, 4; and delivered when the hole is filled."""
    d.opened()
    d.works()
    at = d.seq
    for number, expected in ((1, ((1, 2),)), (3, ((3, 4), (1, 2))), (5, ((5, 6), (3, 4), (1, 2)))):
        d.give(d.segment(ACK, bytes([number]) * 50, seq=at + 50 * number))
        answer = d.acknowledgement()
        assert answer.sack_blocks == tuple((at + 50 * left, at + 50 * right) for left, right in expected)
    for number in (0, 2, 4):
        d.give(d.segment(ACK, bytes([number]) * 50, seq=at + 50 * number))
    d.seq = at + 300
    d.gets(b"".join(bytes([number]) * 50 for number in range(6)))
    d.works()


def what_overlaps_is_put_together(d: Dialogue) -> None:
    d.opened()
    data = bytes(range(200))
    for start, end in ((50, 120), (100, 160), (40, 60), (150, 200), (0, 45)):
        d.give(d.segment(ACK, data[start:end], seq=d.seq + start))
    d.seq += 200
    d.gets(data)
    d.works()


def a_closed_window_is_probed(d: Dialogue) -> None:
    """RFC 9293, 3.8.6.1: with more and more time between, until it opens."""
    d.opened()
    d.works()
    d.window = 0
    d.give(d.segment())
    d.all_heard()
    d.write(b"waits")
    start, times = d.now, []
    for _ in range(3):
        probe = d.until(lambda segment: True, 5)
        times.append(d.now - start)
        assert probe.payload in (b"", b"w")
        assert probe.seq in ((d.ack - 1) & MASK, d.ack)
        d.give(d.segment())
    first, second, third = times
    assert 0.15 < first < 1
    assert 1.4 < (third - second) / (second - first) < 3
    d.window = 600
    d.give(d.segment())
    d.hears(b"waits")


def both_close_at_once(d: Dialogue) -> None:
    d.opened()
    d.works()
    before = d.ack
    d.shutdown()
    fin = d.ends_with()
    assert fin.seq == before
    # Ours crosses it on the way.
    d.give(d.segment(FIN | ACK, ack=before))
    d.seq += 1
    d.until(lambda segment: segment.flags == ACK and segment.ack == d.seq)
    d.give(d.segment())
    d.quiet()
    d.gets(b"")
    # TIME-WAIT on its side: the last acknowledgement again, for a FIN that comes again.
    d.give(d.segment(FIN | ACK, seq=d.seq - 1))
    d.acknowledgement()


def half_closed_it_goes_on_sending(d: Dialogue) -> None:
    d.opened()
    d.works()
    d.send(b"the last word", FIN | ACK | PSH)
    d.acknowledgement()
    d.gets(b"the last word")
    d.gets(b"")
    d.write(b"still here")
    d.hears(b"still here")
    d.give(d.segment())
    d.close()
    d.ends_with()
    d.give(d.segment())
    d.quiet()
    # Nothing is left of it.
    d.give(d.segment(FIN | ACK, seq=d.seq - 1))
    assert d.until(lambda segment: segment.flags & RST).seq == d.ack


def time_wait_repeats_its_acknowledgement(d: Dialogue) -> None:
    d.opened(active=True)
    d.works()
    d.close()
    d.ends_with()
    d.give(d.segment())
    d.quiet(0.05)
    d.send(b"", FIN | ACK)
    d.acknowledgement()
    d.give(d.segment(FIN | ACK, seq=d.seq - 1))
    d.acknowledgement()
    d.quiet()


def the_end_waits_for_what_comes_before_it(d: Dialogue) -> None:
    d.opened()
    d.give(d.segment(FIN | ACK, seq=d.seq + 5))
    d.all_heard()
    assert d.read() is None
    d.give(d.segment(ACK | PSH, b"first"))
    d.seq += 6
    d.acknowledgement()
    d.gets(b"first")
    d.gets(b"")


def closing_with_unread_data_resets(d: Dialogue) -> None:
    """RFC 2525, 2.17."""
    d.opened()
    d.works()
    d.send(b"nobody will read this")
    d.all_heard(0.06)
    d.close()
    reset = d.until(lambda segment: segment.flags & RST)
    assert reset.seq == d.ack


def data_for_nobody_resets(d: Dialogue) -> None:
    """RFC 1122, 4.2.2.13: closed, and the peer goes on talking."""
    d.opened()
    d.works()
    d.close()
    d.ends_with()
    d.give(d.segment())
    d.send(b"and another thing")
    assert d.until(lambda segment: segment.flags & RST).seq == d.ack


def packet_too_big_lowers_the_segments(d: Dialogue) -> None:
    """RFC 1191: believed if it quotes what is in flight."""
    d.opened()
    d.works()
    d.write(bytes(8000))
    sent = d.all_heard()
    assert max(len(segment.payload) for segment in sent) == d.mtu - 52
    quoted = scapy_wire.build_tcp(sent[0])[:28]
    wrong = quoted[:24] + ((sent[0].seq + (1 << 30)) & MASK).to_bytes(4, "big")
    for quote in (wrong, quoted):
        d.put(scapy_wire.build_icmp(IcmpMessage(d.peer, d.host, 3, 4, 1000, quote)))
    # Timestamps and headers: 948 bytes are left.
    received = bytearray()
    while len(received) < 8000:
        segment = d.until(lambda segment: segment.payload and segment.seq == d.ack, 3)
        assert len(segment.payload) <= 948
        received += segment.payload
        d.ack = (d.ack + len(segment.payload)) & MASK
        d.give(d.segment())
    assert received == bytes(8000)


def a_repeated_syn_is_answered_again(d: Dialogue) -> None:
    """The same SYN-ACK: ours may have been lost."""
    d.listen()
    syn = d.segment(SYN, mss=1460, window_scale=7, sack_permitted=True)
    d.give(syn)
    first = d.until(lambda segment: segment.flags == SYN | ACK)
    d.give(syn)
    again = d.until(lambda segment: segment.flags == SYN | ACK)
    assert (again.seq, again.ack, again.mss, again.window_scale) == (
        first.seq, first.ack, first.mss, first.window_scale,
    )  # fmt: skip
    d.seq, d.ack, d.window = d.seq + 1, (first.seq + 1) & MASK, 600
    d.give(d.segment())
    d.accept()
    d.works()


def a_lost_segment_is_sent_again_and_no_other(d: Dialogue) -> None:
    """RFC 2018 and RFC 6675: three of four are reported, the first comes again."""
    d.opened()
    d.works()
    d.write(bytes(4 * (d.mtu - 52)))
    # At once, before a probe asks for the last one.
    sent: list[TcpSegment] = []
    while len(sent) < 4:
        sent += d.heard(0.1)
    assert len(sent) == 4
    end = (sent[3].seq + len(sent[3].payload)) & MASK
    d.give(d.segment(sack_blocks=((sent[1].seq, end),)))
    again = d.until(lambda segment: segment.payload)
    assert (again.seq, again.payload) == (sent[0].seq, sent[0].payload)
    d.ack = end
    d.give(d.segment())
    d.quiet(0.3)


SCENARIOS: list[Callable[[Dialogue], None]] = [
    a_closed_port_refuses, our_dialling_is_refused, a_reset_at_the_exact_number_resets,
    a_reset_elsewhere_in_the_window_is_challenged, a_reset_outside_of_the_window_is_nothing,
    a_syn_in_the_window_is_challenged, an_old_timestamp_is_an_old_segment,
    an_acknowledgement_that_was_overtaken_is_not_answered, old_acknowledgements_are_answered_rarely,
    what_comes_twice_is_reported,
    what_comes_early_is_reported_newest_first, what_overlaps_is_put_together, a_closed_window_is_probed,
    both_close_at_once, half_closed_it_goes_on_sending, time_wait_repeats_its_acknowledgement,
    the_end_waits_for_what_comes_before_it, closing_with_unread_data_resets, data_for_nobody_resets,
    packet_too_big_lowers_the_segments, a_repeated_syn_is_answered_again, a_lost_segment_is_sent_again_and_no_other,
]  # fmt: skip
