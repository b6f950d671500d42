"""Cutting TLS bytes into messages and joining them; resets on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.controlchannel.channel import ControlChannel
from minivpn_trio.errors import DropReason
from minivpn_trio.items import ExpectKey, OpenKey, RetireKey, Segment, SoftResetSeen, TLSBytes
from minivpn_trio.packet.ids import KeyID, Role
from minivpn_trio.packet.opcodes import Opcode

K0, K1 = KeyID(0), KeyID(1)
V1 = Opcode.CONTROL_V1


def channel(role: Role = Role.CLIENT, max_payload: int = 4) -> ControlChannel:
    return ControlChannel(role=role, max_payload=lambda: max_payload)


def test_neighbouring_pieces_of_a_key_are_joined_and_order_is_kept() -> None:
    segments = [
        Segment(K0, Opcode.CONTROL_HARD_RESET_SERVER_V2, b""),
        Segment(K0, V1, b"ab"),
        Segment(K0, V1, b"c"),
        Segment(K1, Opcode.CONTROL_SOFT_RESET_V1, b""),
        Segment(K1, V1, b"d"),
        Segment(K0, V1, b"e"),
        Segment(K0, V1, b""),
    ]
    assert channel().handle_segments(segments) == [
        TLSBytes(K0, b"abc"),
        SoftResetSeen(K1),
        TLSBytes(K1, b"d"),
        TLSBytes(K0, b"e"),
    ]


@pytest.mark.parametrize(
    ("role", "opcode", "drops"),
    [
        (Role.CLIENT, Opcode.CONTROL_HARD_RESET_SERVER_V2, {}),
        (Role.SERVER, Opcode.CONTROL_HARD_RESET_CLIENT_V2, {}),
        (Role.SERVER, Opcode.CONTROL_HARD_RESET_CLIENT_V3, {}),
        (Role.CLIENT, Opcode.CONTROL_HARD_RESET_CLIENT_V2, {DropReason.UNEXPECTED_OPCODE: 1}),
        (Role.SERVER, Opcode.CONTROL_HARD_RESET_SERVER_V2, {DropReason.UNEXPECTED_OPCODE: 1}),
        (Role.CLIENT, Opcode.ACK_V1, {DropReason.UNEXPECTED_OPCODE: 1}),
    ],
)
def test_hard_resets_mean_nothing_here(role: Role, opcode: Opcode, drops: dict[DropReason, int]) -> None:
    core = channel(role)
    assert core.handle_segments([Segment(K0, opcode, b"")]) == []
    assert core.drops == drops


def test_bytes_beside_a_wrapped_client_key_are_tls_too() -> None:
    segments = [Segment(K0, Opcode.CONTROL_WKC_V1, b"he"), Segment(K0, V1, b"llo")]
    assert channel(Role.SERVER).handle_segments(segments) == [TLSBytes(K0, b"hello")]


def test_commands_keep_their_place_between_the_pieces() -> None:
    reset = OpenKey(K1, Opcode.CONTROL_SOFT_RESET_V1)
    expect, retire = ExpectKey(KeyID(2)), RetireKey(K0)
    items = [TLSBytes(K0, b"123456789"), reset, TLSBytes(K1, b"x"), expect, retire, TLSBytes(K1, b"")]
    assert channel().segment(items) == [
        Segment(K0, V1, b"1234"),
        Segment(K0, V1, b"5678"),
        Segment(K0, V1, b"9"),
        reset,
        Segment(K1, V1, b"x"),
        expect,
        retire,
    ]


def test_the_size_is_asked_each_time() -> None:
    sizes = iter([3, 2])
    core = ControlChannel(role=Role.CLIENT, max_payload=lambda: next(sizes))
    lengths = [[len(s.payload) for s in core.segment([TLSBytes(K0, bytes(6))]) if isinstance(s, Segment)] for _ in "ab"]
    assert lengths == [[3, 3], [2, 2, 2]]


def test_no_room_at_all_is_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(ValueError, match="max_payload is 0"):
        channel(max_payload=0).segment([TLSBytes(K0, b"x")])


@given(
    st.lists(st.builds(TLSBytes, st.sampled_from([K0, K1]), st.binary(max_size=40)), max_size=10), st.integers(1, 50)
)
def test_what_was_cut_is_joined_again(items: list[TLSBytes], max_payload: int) -> None:
    core = channel(max_payload=max_payload)
    segments = [s for s in core.segment(items) if isinstance(s, Segment)]
    assert all(0 < len(s.payload) <= max_payload for s in segments)
    joined = core.handle_segments(segments)
    for key in (K0, K1):
        before = b"".join(item.data for item in items if item.key_id == key)
        assert before == b"".join(item.data for item in joined if isinstance(item, TLSBytes) and item.key_id == key)
