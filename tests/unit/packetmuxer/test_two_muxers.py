"""A client's and a server's muxer, opening a session with each wrap."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from minivpn_trio.config.model import ControlWrapKind, Remote, TunnelConfig
from minivpn_trio.errors import DropReason
from minivpn_trio.items import Burst, SequencedPacket
from minivpn_trio.packet.ids import KeyID, PacketID, Role
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.packetmuxer.control_wrap import make_control_wrap
from minivpn_trio.packetmuxer.muxer import PacketMuxer

KEY_FILE = b"-----BEGIN OpenVPN Static key V1-----\n%s\n-----END OpenVPN Static key V1-----\n" % (
    random.Random(5).randbytes(256).hex().encode()
)
KEY0 = KeyID(0)
CLIENT_RESET = SequencedPacket(KEY0, Opcode.CONTROL_HARD_RESET_CLIENT_V2, (), PacketID(0), b"", 1)
SERVER_RESET = SequencedPacket(KEY0, Opcode.CONTROL_HARD_RESET_SERVER_V2, (PacketID(0),), PacketID(0), b"", 1)

every_kind = pytest.mark.parametrize("kind", ["none", "tls-auth", "tls-crypt"])


def make(role: Role, kind: ControlWrapKind, seed: int) -> PacketMuxer:
    config = TunnelConfig(
        remotes=(Remote("a"),),
        control_wrap=kind,
        control_wrap_key=KEY_FILE,
        key_direction=1 if role is Role.CLIENT else 0,
        auth="SHA256",
    )
    wrap = make_control_wrap(config, role, unix_time=lambda: 1_700_000_000.0 + seed)
    return PacketMuxer(role=role, wrap=wrap, rng=random.Random(seed).randbytes)


def up(packet: SequencedPacket) -> SequencedPacket:
    """The packet as it leaves the other muxer."""
    return SequencedPacket(packet.key_id, packet.opcode, packet.acks, packet.packet_id, packet.payload)


def open_session(client: PacketMuxer, server: PacketMuxer) -> Burst:
    """Both resets and the client's acknowledgement; returns all that went over the wire."""
    wire = client.wrap_control([CLIENT_RESET], 0.0)
    demuxed = server.handle_datagrams(wire, 0.1)
    assert demuxed == ([], [up(CLIENT_RESET)], True)
    answer = server.wrap_control([SERVER_RESET], 0.1)
    assert client.handle_datagrams(answer, 0.2) == ([], [up(SERVER_RESET)], True)
    hello = SequencedPacket(KEY0, Opcode.CONTROL_V1, (PacketID(0),), PacketID(1), b"ClientHello", 1)
    last = client.wrap_control([hello], 0.2)
    assert server.handle_datagrams(last, 0.3) == ([], [up(hello)], False)
    return wire + answer + last


@every_kind
def test_a_session_opens(kind: ControlWrapKind) -> None:
    client, server = make(Role.CLIENT, kind, 1), make(Role.SERVER, kind, 2)
    open_session(client, server)
    assert client.remote_session_id == server.local_session_id
    assert server.remote_session_id == client.local_session_id
    assert not client.drops
    assert not server.drops
    assert (client.packets_in, client.packets_out, server.packets_in, server.packets_out) == (1, 2, 2, 1)


@every_kind
def test_retransmitted_resets_reach_the_reliability_layer(kind: ControlWrapKind) -> None:
    client, server = make(Role.CLIENT, kind, 1), make(Role.SERVER, kind, 2)
    open_session(client, server)
    again = server.handle_datagrams(client.wrap_control([CLIENT_RESET], 2.0), 2.1)
    assert again == ([], [up(CLIENT_RESET)], False)
    again = client.handle_datagrams(server.wrap_control([SERVER_RESET], 2.1), 2.2)
    assert again == ([], [up(SERVER_RESET)], False)


@every_kind
def test_recorded_packets_open_nothing_later(kind: ControlWrapKind) -> None:
    """A new client, and old answers to an old one."""
    old, server = make(Role.CLIENT, kind, 1), make(Role.SERVER, kind, 2)
    recorded = open_session(old, server)
    fresh = make(Role.CLIENT, kind, 3)
    assert fresh.handle_datagrams(recorded, 10.0) == ([], [], False)
    assert fresh.remote_session_id is None
    assert fresh.drops.total() == len(recorded)
    # With a wrap, its own side's packets do not even authenticate.
    assert fresh.drops[DropReason.BAD_SESSION_ID] == (2 if kind == "none" else 1)


@pytest.mark.parametrize("kind", ["tls-auth", "tls-crypt"])
def test_recorded_packets_are_replays_in_their_own_session(kind: ControlWrapKind) -> None:
    client, server = make(Role.CLIENT, kind, 1), make(Role.SERVER, kind, 2)
    recorded = open_session(client, server)
    assert server.handle_datagrams(recorded, 1.0).control == []
    assert client.handle_datagrams(recorded, 1.0).control == []
    for muxer, own in ((client, 2), (server, 1)):
        assert muxer.drops == Counter({DropReason.REPLAY: 3 - own, DropReason.BAD_AUTHENTICATION: own})


def test_soft_resets_travel_with_their_key_id() -> None:
    client, server = make(Role.CLIENT, "tls-crypt", 1), make(Role.SERVER, "tls-crypt", 2)
    open_session(client, server)
    soft = SequencedPacket(KeyID(1), Opcode.CONTROL_SOFT_RESET_V1, (), PacketID(0), b"", 1)
    wire = client.wrap_control([soft], 5.0)
    # Provenance: the size of openvpn 2.6.14's soft reset behind (dynamic) tls-crypt, as captured.
    assert [len(datagram) for datagram in wire] == [54]
    assert server.handle_datagrams(wire, 5.1).control == [up(soft)]


@pytest.mark.parametrize(("mine", "theirs"), [("none", "tls-auth"), ("tls-auth", "tls-crypt"), ("tls-crypt", "none")])
def test_different_wraps_never_open_a_session(mine: ControlWrapKind, theirs: ControlWrapKind) -> None:
    client, server = make(Role.CLIENT, mine, 1), make(Role.SERVER, theirs, 2)
    assert server.handle_datagrams(client.wrap_control([CLIENT_RESET], 0.0), 0.1) == ([], [], False)
    assert server.drops.total() == 1
