"""The struct path for echo requests held against scapy and ``echo_reply``: the same answer, octet by octet."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from minivpn_trio.errors import DropReason, ProtocolError
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.icmp import answer_echo_untrusted, echo_reply
from minivpn_trio.netstack.packets import IcmpMessage
from minivpn_trio.netstack.stack import Stack

A4, B4 = bytes([10, 8, 0, 6]), bytes([10, 8, 0, 1])
A6, B6 = bytes.fromhex("fd00" + "0" * 27 + "6"), bytes.fromhex("fd00" + "0" * 27 + "1")

sizes = st.integers(0, 1400)
payloads = st.one_of(st.binary(max_size=60), sizes.map(lambda n: b"\xff" * n), sizes.map(bytes))
messages = st.builds(
    lambda ends, kind, code, rest, payload: IcmpMessage(*ends, kind, code, rest, payload),
    st.sampled_from([(B4, A4), (B6, A6)]), st.sampled_from([8, 128, 0, 129, 3]), st.sampled_from([0, 0, 0, 1]),
    st.integers(0, 0xFFFFFFFF), payloads,
)  # fmt: skip


def answer_slowly(packet: bytes) -> bytes | None:
    try:
        parsed = scapy_wire.parse_untrusted(packet)
    except ProtocolError:
        return None
    answer = echo_reply(parsed) if isinstance(parsed, IcmpMessage) else None
    return None if answer is None else scapy_wire.build_icmp(answer)


@given(messages, st.integers(1, 255), st.integers(0, 65535))
@example(IcmpMessage(B4, A4, 8, 0, 0xFFFF, b""), 1, 0)  # a checksum of 0
@example(IcmpMessage(B4, A4, 8, 0, 0, b""), 1, 0)  # and one of 65535
def test_the_same_answer(message: IcmpMessage, ttl: int, ident: int) -> None:
    packet = scapy_wire.build_icmp(message, ttl=ttl, ident=ident)
    assert answer_echo_untrusted(packet) == answer_slowly(packet)


damages = st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=3)


@given(messages, damages, st.binary(max_size=3))
def test_damage_is_left_to_scapy_or_answered_alike(
    message: IcmpMessage, damage: list[tuple[int, int]], padding: bytes
) -> None:
    packet = bytearray(scapy_wire.build_icmp(message))
    for at, octet in damage:
        packet[at % len(packet)] = octet
    answer = answer_echo_untrusted(bytes(packet) + padding)
    if answer is not None:
        assert answer == answer_slowly(bytes(packet) + padding)


@given(st.binary(max_size=80))
def test_random_octets(packet: bytes) -> None:
    for candidate in (packet, b"E\0" + packet, b"\x60" + packet):
        answer = answer_echo_untrusted(candidate)
        assert answer is None or answer == answer_slowly(candidate)


def test_a_large_request_is_answered_in_fragments() -> None:
    """Nobody is answered who says that he is us, and nobody more often than is allowed."""
    stack = Stack(addresses=[A4], mtu=1400, rng=bytes, now=0.0)
    request = scapy_wire.build_icmp(IcmpMessage(B4, A4, 8, 0, 1, bytes(4000)))
    stack.handle_packets([request], 0.0)
    pieces = stack.take_output()
    assert [len(piece) <= 1400 for piece in pieces] == [True] * 3
    other = Stack(addresses=[B4], mtu=1400, rng=bytes, now=0.0)
    other.handle_packets(pieces, 0.0)
    assert other.drops == {DropReason.NO_SOCKET: 1}, "it did not arrive whole"
    stack.handle_packets([scapy_wire.build_icmp(IcmpMessage(A4, A4, 8, 0, 1))], 0.0)
    assert stack.take_output() == []
    small = scapy_wire.build_icmp(IcmpMessage(B4, A4, 8, 0, 1))
    stack.handle_packets([small] * 3000, 0.0)
    sent = 0
    while burst := stack.take_output():
        sent += len(burst)
    assert sent == stack.limits.echoes_per_second - 1
