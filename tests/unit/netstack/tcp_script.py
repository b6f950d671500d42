"""A stack on one side, a script on the other: segments in and out by hand, on a fake clock."""

from __future__ import annotations

import random
from dataclasses import replace

from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import ACK, FIN, PSH, RST, SYN, TcpSegment
from minivpn_trio.netstack.stack import Limits, Stack
from minivpn_trio.netstack.tcp.connection import TcpConnection
from minivpn_trio.netstack.tcp.settings import TcpSettings

US, PEER = bytes((10, 8, 0, 2)), bytes((192, 0, 2, 1))
PORT = 80
MASK = 0xFFFFFFFF


class Script:
    """``stack`` talks; the script answers as ``PEER``. Nothing is paced: a dialogue counts segments, not time."""

    def __init__(self, *, mtu: int = 1500, settings: TcpSettings | None = None, limits: Limits | None = None) -> None:
        self.now = 5000.0
        settings = replace(settings or TcpSettings(), pacing=False)
        self.stack = Stack(
            addresses=[US], mtu=mtu, rng=random.Random(1).randbytes, now=self.now, settings=settings, limits=limits
        )
        self.iss = 7_000_000
        #: The script's next sequence number, and what it acknowledges; as on the wire.
        self.seq = self.iss
        self.ack = 0
        self.port = 0
        self.timestamps = True
        self.echo = 0

    def out(self) -> list[TcpSegment]:
        """Everything that the stack wants to send now."""
        segments = []
        for packet in self.stack.take_output(10_000, self.now):
            assert len(packet) <= self.stack.mtu
            parsed = scapy_wire.parse_untrusted(packet)
            assert isinstance(parsed, TcpSegment), parsed
            if parsed.timestamps is not None:
                self.echo = parsed.timestamps[0]
            segments.append(parsed)
        return segments

    def one(self) -> TcpSegment:
        """The only thing that the stack wants to send."""
        (segment,) = self.out()
        return segment

    def segment(self, flags: int = ACK, payload: bytes = b"", **changes: object) -> TcpSegment:
        """From the script to the stack."""
        segment = TcpSegment(PEER, US, PORT, self.port, self.seq, self.ack, flags, 60_000, payload)
        if self.timestamps and not flags & RST:
            segment.timestamps = (int(self.now * 1000) & MASK, self.echo)
        return replace(segment, **changes)  # type: ignore[arg-type]

    def give(self, *segments: TcpSegment) -> None:
        """One burst."""
        self.stack.handle_packets([scapy_wire.build_tcp(segment) for segment in segments], self.now)

    def wait(self, seconds: float) -> None:
        """Time passes; timers go off when they are due."""
        end = self.now + seconds
        while (at := self.stack.next_timeout()) is not None and at <= end:
            self.now = max(self.now, at)
            self.stack.handle_timeout(self.now)
        self.now = end

    def connect(
        self, *, mss: int | None = 1460, scale: int | None = 7, sack: bool = True, timestamps: bool = True
    ) -> TcpConnection:
        """A complete handshake by the stack."""
        connection = self.stack.connect_tcp((PEER, PORT), self.now)
        syn = self.one()
        assert syn.flags == SYN
        self.port, self.ack = syn.sport, (syn.seq + 1) & MASK
        self.timestamps = timestamps
        self.now += 0.02
        answer = self.segment(SYN | ACK, mss=mss, window_scale=scale, sack_permitted=sack)
        self.give(answer)
        self.seq = (self.seq + 1) & MASK
        ack = self.one()
        assert (ack.flags, ack.seq, ack.ack) == (ACK, self.ack, self.seq)
        assert connection.connected
        return connection

    def send(self, payload: bytes, flags: int = ACK | PSH) -> None:
        """In order."""
        self.give(self.segment(flags, payload))
        self.seq = (self.seq + len(payload) + bool(flags & FIN)) & MASK

    def take(self, segments: list[TcpSegment]) -> bytes:
        """Payload of in-order segments, noted for acknowledgement."""
        data = b""
        for segment in segments:
            assert segment.seq == self.ack
            data += segment.payload
            self.ack = (self.ack + len(segment.payload) + bool(segment.flags & FIN)) & MASK
        return data
