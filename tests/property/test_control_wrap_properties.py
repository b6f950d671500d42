"""tls-crypt-v2 and early negotiation under arbitrary bytes, and a client that survives them."""

from __future__ import annotations

import contextlib
import random
from struct import pack

from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.config.tls_crypt_v2_key import (
    MAX_WRAPPED_KEY,
    MIN_WRAPPED_KEY,
    TlsCryptV2ClientKey,
    parse_client_key,
    parse_server_key,
    serialize_client_key,
)
from minivpn_trio.errors import ProtocolError
from minivpn_trio.items import SequencedPacket
from minivpn_trio.packet.ids import KeyID, PacketID, Role
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.packetmuxer.early_negotiation import EarlyFlag, parse_early_untrusted
from minivpn_trio.packetmuxer.muxer import MAX_CONTROL_DATAGRAM, PacketMuxer
from minivpn_trio.packetmuxer.static_key import StaticKey
from minivpn_trio.packetmuxer.tls_crypt_v2 import (
    TlsCryptV2,
    TlsCryptV2Server,
    unwrap_client_key_untrusted,
    wrap_client_key,
)

SERVER_KEY = random.Random(1).randbytes(128)
KEY = StaticKey(random.Random(2).randbytes(256))
CARRIERS = (Opcode.CONTROL_HARD_RESET_CLIENT_V3, Opcode.CONTROL_WKC_V1)


def time() -> float:
    return 1_700_000_000.0


def wrap_with(metadata: bytes) -> TlsCryptV2:
    key = TlsCryptV2ClientKey(KEY.material, wrap_client_key(SERVER_KEY, KEY, metadata))
    return TlsCryptV2(key, unix_time=time)


@given(st.binary(max_size=MAX_WRAPPED_KEY - MIN_WRAPPED_KEY), st.binary(min_size=256, max_size=256))
def test_wrapped_keys_there_and_back(metadata: bytes, material: bytes) -> None:
    wrapped = wrap_client_key(SERVER_KEY, StaticKey(material), metadata)
    assert unwrap_client_key_untrusted(SERVER_KEY, wrapped) == (StaticKey(material), metadata)
    key = TlsCryptV2ClientKey(material, wrapped)
    assert parse_client_key(serialize_client_key(key)) == key


@given(
    st.binary(max_size=MAX_WRAPPED_KEY - MIN_WRAPPED_KEY),
    st.lists(st.tuples(st.sampled_from(CARRIERS), st.binary(max_size=900)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_carriers_there_and_back_in_any_order(
    metadata: bytes, packets: list[tuple[Opcode, bytes]], rng: random.Random
) -> None:
    client, server = wrap_with(metadata), TlsCryptV2Server(SERVER_KEY, unix_time=time)
    sent = [(bytes([opcode << 3]) + b"ABCDEFGH", body) for opcode, body in packets]
    wire = [(client.wrap(head, body, 0.0), (head, body)) for head, body in sent]
    rng.shuffle(wire)
    for datagram, packet in wire:
        assert server.unwrap_untrusted(datagram, 0.0) == packet


@given(st.binary(max_size=1300))
def test_a_server_refuses_arbitrary_bytes(datagram: bytes) -> None:
    server = TlsCryptV2Server(SERVER_KEY, unix_time=time)
    try:
        server.unwrap_untrusted(datagram, 0.0)
    except ProtocolError:
        return
    raise AssertionError("that was forged")


@given(st.sampled_from(CARRIERS), st.binary(max_size=1300), st.integers(0, 1200))
def test_a_server_refuses_what_only_looks_like_a_carrier(opcode: Opcode, noise: bytes, size: int) -> None:
    server = TlsCryptV2Server(SERVER_KEY, unix_time=time)
    try:
        server.unwrap_untrusted(bytes([opcode << 3]) + noise + size.to_bytes(2), 0.0)
    except ProtocolError:
        return
    raise AssertionError("that was forged")


@given(st.binary(max_size=200))
def test_early_negotiation_of_arbitrary_bytes(payload: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert parse_early_untrusted(payload) in (EarlyFlag(0), EarlyFlag.RESEND_WKC)


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=10), st.booleans())
def test_early_negotiation_reads_any_well_formed_list(items: list[tuple[int, bytes]], asked: bool) -> None:
    others = [(kind, value) for kind, value in items if kind != 1]
    flags = [(1, bytes(2))] if not asked else [(1, b"\x00\x01")]
    parts = [pack("!HH", kind, len(value)) + value for kind, value in [*others[:5], *flags, *others[5:]]]
    assert parse_early_untrusted(b"".join(parts)) == (EarlyFlag.RESEND_WKC if asked else EarlyFlag(0))


@given(st.binary(max_size=1000))
def test_key_files_of_arbitrary_bytes(text: bytes) -> None:
    for kind, parse in ((b"client", parse_client_key), (b"server", parse_server_key)):
        name = b"OpenVPN tls-crypt-v2 %s key-----" % kind
        for tried in (text, b"-----BEGIN " + name + text + b"-----END " + name):
            try:
                parse(tried)
            except ValueError as exc:
                assert type(exc) is ValueError  # noqa: PT017  # no kind of it that says more than we want said


@given(st.integers(0, MAX_WRAPPED_KEY - MIN_WRAPPED_KEY), st.integers(0, 4), st.booleans())
def test_message_1_fits_its_datagram(metadata: int, acks: int, asked: bool) -> None:
    """Unless the wrapped key leaves so little that progress counts for more."""
    client = PacketMuxer(role=Role.CLIENT, wrap=wrap_with(bytes(metadata)), rng=random.Random(1).randbytes)
    wrap = TlsCryptV2Server(SERVER_KEY, unix_time=time, ask_again=asked)
    server = PacketMuxer(role=Role.SERVER, wrap=wrap, rng=random.Random(2).randbytes)
    key = KeyID(0)
    reset = SequencedPacket(key, Opcode.CONTROL_HARD_RESET_CLIENT_V3, (), PacketID(0), b"", 1)
    answer = SequencedPacket(key, Opcode.CONTROL_HARD_RESET_SERVER_V2, (PacketID(0),), PacketID(0), b"", 1)
    assert server.handle_datagrams(client.wrap_control([reset], 0.0), 0.0).bound
    assert client.handle_datagrams(server.wrap_control([answer], 0.0), 0.0).bound
    payload = bytes(client.max_control_payload)
    assert len(payload) >= 16
    hello = SequencedPacket(key, Opcode.CONTROL_V1, (PacketID(0),) * acks, PacketID(1), payload, 1)
    (datagram,) = client.wrap_control([hello], 0.0)
    assert len(datagram) <= MAX_CONTROL_DATAGRAM
    (packet,) = server.handle_datagrams([datagram], 0.0).control
    assert packet.payload == payload
