"""Hypothesis strategies for whatever sits on a tunnel: links, IP packets, hostile datagrams, schedules.

Needs hypothesis, which the package itself does not: import this module where
the tests are.

    @given(link_conditions(), st.integers())
    def test_mine(conditions, seed):
        link = LinkModel(conditions, seed)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

from hypothesis import strategies as st

from ..items import Burst
from ..packet.opcodes import OPCODE_SHIFT, Opcode
from .link import LinkConditions

__all__ = ["Step", "hostile_datagrams", "ipv4_packets", "link_conditions", "schedules"]

#: The largest UDP payload.
MAX_DATAGRAM = 65_507


def link_conditions(
    *, max_loss: float = 0.5, max_delay: float = 0.5, damage: bool = True, limited: bool = False
) -> st.SearchStrategy[LinkConditions]:
    """Conditions that a session can live with, given time. Shrinks towards a perfect link.

    ``damage`` allows duplication and corruption, ``limited`` a rate of 64 kbit/s to 100 Mbit/s.
    """
    harm = st.floats(0.0, 0.3) if damage else st.just(0.0)
    return st.builds(
        LinkConditions,
        loss=st.floats(0.0, max_loss),
        duplication=harm,
        corruption=harm,
        delay=st.floats(0.0, max_delay),
        jitter=st.floats(0.0, max_delay),
        rate=st.none() | st.floats(64e3, 100e6) if limited else st.none(),
    )


@st.composite
def ipv4_packets(
    draw: st.DrawFn,
    source: str = "10.8.0.2",
    destination: str = "10.8.0.1",
    *,
    max_size: int = 1500,
) -> bytes:
    """Well-formed UDP packets, 28 to ``max_size`` bytes, checksums right (RFC 791, RFC 768)."""
    payload = draw(st.binary(max_size=max_size - 28))
    ports = draw(st.tuples(st.integers(1, 65535), st.integers(1, 65535)))
    length = 8 + len(payload)
    addresses = IPv4Address(source).packed + IPv4Address(destination).packed
    udp = struct.pack(">4H", *ports, length, 0) + payload
    pseudo = addresses + struct.pack(">HH", 17, length)
    udp = udp[:6] + struct.pack(">H", _checksum(pseudo + udp) or 0xFFFF) + udp[8:]
    identification = draw(st.integers(0, 65535))
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), identification, 0, 64, 17, 0) + addresses
    return head[:10] + struct.pack(">H", _checksum(head)) + head[12:] + udp


def _checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@st.composite
def hostile_datagrams(draw: st.DrawFn, session_id: bytes | None = None) -> bytes:
    """What anybody may send to an OpenVPN port: noise, and packets of every opcode with anything behind it.

    With ``session_id`` (8 bytes, what somebody on the path has seen) half of them name it.
    """
    kind = draw(st.sampled_from(["noise", "control", "data"]))
    if kind == "noise":
        return draw(st.binary(max_size=draw(st.sampled_from([8, 64, 1500, 4000]))))
    data_opcodes = [Opcode.DATA_V1, Opcode.DATA_V2]
    opcodes = data_opcodes if kind == "data" else [opcode for opcode in Opcode if opcode not in data_opcodes]
    first = draw(st.sampled_from(opcodes)) << OPCODE_SHIFT | draw(st.integers(0, 7))
    if kind == "data":
        return bytes([first]) + draw(st.binary(max_size=1500))
    named = session_id if session_id is not None and draw(st.booleans()) else draw(st.binary(min_size=8, max_size=8))
    acks = draw(st.lists(st.integers(0, 40), max_size=10))
    body = bytes([draw(st.sampled_from([len(acks), 0, 255]))]) + b"".join(ack.to_bytes(4, "big") for ack in acks)
    body += draw(st.sampled_from([b"", named])) + draw(st.integers(0, 40)).to_bytes(4, "big")
    return bytes([first]) + named + body + draw(st.binary(max_size=200))


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of an adversary who sits on the link."""

    #: ``deliver`` the oldest packets, ``drop`` or ``repeat`` or ``swap`` them, ``inject`` some, or let time pass.
    action: Literal["deliver", "drop", "repeat", "swap", "inject", "wait"]
    #: How many packets it concerns.
    count: int = 1
    #: Seconds that pass before it.
    seconds: float = 0.0
    #: What is injected.
    packets: tuple[bytes, ...] = ()

    def apply(self, queue: Burst) -> Burst:
        """Do it to ``queue``, the packets on the way, oldest first; what arrives now."""
        count = min(self.count, len(queue))
        head = queue[:count]
        match self.action:
            case "deliver":
                del queue[:count]
                return head
            case "drop":
                del queue[:count]
            case "repeat":
                return head
            case "swap":
                queue[:count] = head[::-1]
            case "inject":
                return list(self.packets)
            case "wait":
                pass
        return []


def schedules(*, max_steps: int = 50, session_id: bytes | None = None) -> st.SearchStrategy[list[Step]]:
    """What an adversary does to one direction of a link, step by step. Shrinks towards a link that delivers."""
    seconds = st.floats(0.0, 3.0)
    counts = st.integers(1, 8)
    plain = st.builds(Step, st.sampled_from(["deliver", "wait", "drop", "repeat", "swap"]), counts, seconds)
    injected = st.lists(hostile_datagrams(session_id), min_size=1, max_size=4).map(tuple)
    injecting = st.builds(Step, st.just("inject"), st.just(1), seconds, injected)
    return st.lists(plain | injecting, max_size=max_steps)
