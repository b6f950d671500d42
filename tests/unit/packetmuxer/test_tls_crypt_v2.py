"""tls-crypt-v2: wrapped keys, the packets that carry them, and what a server refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tls_crypt_v2_keys import (
    CLIENT_KEY,
    METADATA_TIME,
    METADATA_USER,
    SERVER_KEY,
    WRAPPED_TIME,
    WRAPPED_USER,
)

from minivpn_trio.config.model import Remote, TunnelConfig
from minivpn_trio.config.tls_crypt_v2_key import (
    MAX_WRAPPED_KEY,
    TlsCryptV2ClientKey,
    serialize_client_key,
    serialize_server_key,
)
from minivpn_trio.errors import ConfigError, DropReason, ProtocolError
from minivpn_trio.packet.ids import Role
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.packetmuxer.control_wrap import make_control_wrap
from minivpn_trio.packetmuxer.early_negotiation import EarlyFlag
from minivpn_trio.packetmuxer.static_key import StaticKey
from minivpn_trio.packetmuxer.tls_crypt import TlsCrypt
from minivpn_trio.packetmuxer.tls_crypt_v2 import (
    TlsCryptV2,
    TlsCryptV2Server,
    split_untrusted,
    unwrap_client_key_untrusted,
    wrap_client_key,
)

KEY = TlsCryptV2ClientKey(CLIENT_KEY, WRAPPED_TIME)
BODY = b"\x00\x00\x00\x00\x01hello"


def head(opcode: Opcode, key_id: int = 0) -> bytes:
    return bytes([opcode << 3 | key_id]) + b"ABCDEFGH"


RESET = head(Opcode.CONTROL_HARD_RESET_CLIENT_V3)
WKC = head(Opcode.CONTROL_WKC_V1)
CONTROL = head(Opcode.CONTROL_V1)


def time() -> float:
    return 1000.0


def client(key: TlsCryptV2ClientKey = KEY) -> TlsCryptV2:
    return TlsCryptV2(key, unix_time=time)


def server(*, ask_again: bool = False, key: bytes = SERVER_KEY) -> TlsCryptV2Server:
    return TlsCryptV2Server(key, unix_time=time, ask_again=ask_again)


def refusal(action: Callable[[], object]) -> DropReason:
    with pytest.raises(ProtocolError) as caught:
        action()
    return caught.value.reason


# WKc. Known answers: tls_crypt_v2_keys.py says where they come from.


@pytest.mark.parametrize(("wrapped", "metadata"), [(WRAPPED_TIME, METADATA_TIME), (WRAPPED_USER, METADATA_USER)])
def test_the_keys_of_the_c_client(wrapped: bytes, metadata: bytes) -> None:
    assert unwrap_client_key_untrusted(SERVER_KEY, wrapped) == (StaticKey(CLIENT_KEY), metadata)
    assert wrap_client_key(SERVER_KEY, StaticKey(CLIENT_KEY), metadata) == wrapped


@pytest.mark.parametrize(("metadata", "size"), [(b"", 290), (bytes(734), 1024)])
def test_metadata_up_to_the_maximum(metadata: bytes, size: int) -> None:
    wrapped = wrap_client_key(SERVER_KEY, StaticKey(CLIENT_KEY), metadata)
    assert len(wrapped) == size
    assert unwrap_client_key_untrusted(SERVER_KEY, wrapped)[1] == metadata


def test_too_much_metadata() -> None:
    with pytest.raises(ValueError, match="734"):
        wrap_client_key(SERVER_KEY, StaticKey(CLIENT_KEY), bytes(735))


def test_another_servers_key() -> None:
    other = bytes([1]) + SERVER_KEY[1:]
    assert refusal(lambda: unwrap_client_key_untrusted(other, WRAPPED_TIME)) is DropReason.BAD_AUTHENTICATION


def test_every_flipped_bit_of_a_wrapped_key_is_found() -> None:
    for position in range(len(WRAPPED_USER)):
        for bit in range(8):
            flipped = bytearray(WRAPPED_USER)
            flipped[position] ^= 1 << bit
            reason = refusal(lambda text=bytes(flipped): unwrap_client_key_untrusted(SERVER_KEY, text))  # type: ignore[misc]
            in_length = position >= len(WRAPPED_USER) - 2
            assert reason is (DropReason.MALFORMED if in_length else DropReason.BAD_AUTHENTICATION)


@pytest.mark.parametrize("size", [0, 1, 2, 31, 289, 296])
def test_a_cut_wrapped_key(size: int) -> None:
    assert refusal(lambda: unwrap_client_key_untrusted(SERVER_KEY, WRAPPED_USER[:size])) is DropReason.MALFORMED


def test_an_overlong_wrapped_key() -> None:
    text = bytes(MAX_WRAPPED_KEY - 1) + (MAX_WRAPPED_KEY + 1).to_bytes(2)
    assert len(text) == MAX_WRAPPED_KEY + 1
    assert refusal(lambda: unwrap_client_key_untrusted(SERVER_KEY, text)) is DropReason.MALFORMED


# Packets.


def test_carriers_and_others_on_the_wire() -> None:
    wrap = client()
    datagrams = [wrap.wrap(each, BODY, 0.0) for each in (RESET, CONTROL, WKC)]
    # Provenance of the first id: openvpn 2.6.14's reset, as captured (251658241).
    assert [int.from_bytes(datagram[9:13]) for datagram in datagrams] == [0x0F000001, 0x0F000002, 0x0F000003]
    assert [datagram.endswith(WRAPPED_TIME) for datagram in datagrams] == [True, False, True]
    assert [len(datagram) for datagram in datagrams] == [9 + 40 + len(BODY) + extra for extra in (299, 0, 299)]
    # Apart from that they are tls-crypt's.
    plain = TlsCrypt(StaticKey(CLIENT_KEY), Role.SERVER, unix_time=time)
    assert plain.unwrap_untrusted(datagrams[0][:-299], 0.0) == (RESET, BODY)
    assert plain.unwrap_untrusted(datagrams[1], 0.0) == (CONTROL, BODY)


def test_a_server_learns_the_key_from_the_reset() -> None:
    ours, theirs = client(), server()
    assert theirs.unwrap_untrusted(ours.wrap(RESET, BODY, 0.0), 0.0) == (RESET, BODY)
    assert theirs.metadata == METADATA_TIME
    assert theirs.unwrap_untrusted(ours.wrap(CONTROL, BODY, 0.0), 0.0) == (CONTROL, BODY)
    answer = theirs.wrap(head(Opcode.CONTROL_HARD_RESET_SERVER_V2), BODY, 0.0)
    assert int.from_bytes(answer[9:13]) == 1
    assert ours.unwrap_untrusted(answer, 0.0) == (head(Opcode.CONTROL_HARD_RESET_SERVER_V2), BODY)
    assert theirs.early_flags == EarlyFlag(0)


def test_a_server_that_asks_again_hears_nothing_until_the_key_came_twice() -> None:
    ours, theirs = client(), server(ask_again=True)
    theirs.unwrap_untrusted(ours.wrap(RESET, BODY, 0.0), 0.0)
    assert theirs.early_flags is EarlyFlag.RESEND_WKC
    early = ours.wrap(CONTROL, BODY, 0.0)
    assert refusal(lambda: theirs.unwrap_untrusted(early, 0.0)) is DropReason.NOT_READY
    assert theirs.unwrap_untrusted(ours.wrap(WKC, BODY, 0.0), 0.0) == (WKC, BODY)
    assert theirs.unwrap_untrusted(early, 0.0) == (CONTROL, BODY)


def test_a_server_that_asks_again_refuses_who_cannot() -> None:
    old = TlsCrypt(StaticKey(CLIENT_KEY), Role.CLIENT, unix_time=time)
    datagram = old.wrap(RESET, BODY, 0.0) + WRAPPED_TIME
    assert server().unwrap_untrusted(datagram, 0.0) == (RESET, BODY)
    assert refusal(lambda: server(ask_again=True).unwrap_untrusted(datagram, 0.0)) is DropReason.NOT_READY


def test_nothing_before_the_key() -> None:
    theirs = server()
    assert refusal(lambda: theirs.unwrap_untrusted(client().wrap(CONTROL, BODY, 0.0), 0.0)) is DropReason.NOT_READY
    with pytest.raises(ValueError, match="first packet"):
        theirs.wrap(CONTROL, BODY, 0.0)
    with pytest.raises(ValueError, match="first packet"):
        theirs.renegotiation(bytes(256), Role.SERVER)


@pytest.mark.parametrize("known", [False, True])
def test_every_flipped_bit_of_a_carrier_is_found(known: bool) -> None:
    """Before the key is known and after, WKc included."""
    ours, theirs = client(), server()
    if known:
        theirs.unwrap_untrusted(ours.wrap(RESET, BODY, 0.0), 0.0)
    datagram = ours.wrap(RESET, BODY, 0.0)
    for position in range(len(datagram)):
        for bit in range(8):
            flipped = bytearray(datagram)
            flipped[position] ^= 1 << bit
            with pytest.raises(ProtocolError):
                theirs.unwrap_untrusted(bytes(flipped), 0.0)
    assert theirs.unwrap_untrusted(datagram, 0.0) == (RESET, BODY)
    assert refusal(lambda: theirs.unwrap_untrusted(datagram, 0.0)) is DropReason.REPLAY


def test_every_cut_is_found() -> None:
    datagram, theirs = client().wrap(RESET, BODY, 0.0), server()
    for size in range(len(datagram)):
        with pytest.raises(ProtocolError):
            theirs.unwrap_untrusted(datagram[:size], 0.0)
    assert theirs.unwrap_untrusted(datagram, 0.0) == (RESET, BODY)


@pytest.mark.parametrize("opcode", [Opcode.CONTROL_V1, Opcode.ACK_V1, Opcode.CONTROL_HARD_RESET_CLIENT_V2])
def test_a_wrapped_key_behind_the_wrong_opcode(opcode: Opcode) -> None:
    ours, theirs = client(), server()
    theirs.unwrap_untrusted(ours.wrap(RESET, BODY, 0.0), 0.0)
    datagram = ours.wrap(head(opcode), BODY, 0.0) + WRAPPED_TIME
    assert refusal(lambda: theirs.unwrap_untrusted(datagram, 0.0)) is DropReason.BAD_AUTHENTICATION


def test_a_carrier_without_its_key() -> None:
    ours, theirs = client(), server()
    assert refusal(lambda: theirs.unwrap_untrusted(ours.wrap(RESET, BODY, 0.0)[:-299], 0.0)) in (
        DropReason.MALFORMED, DropReason.TOO_SHORT,
    )  # fmt: skip


def test_a_carrier_of_another_key_id() -> None:
    ours, theirs = client(), server()
    theirs.unwrap_untrusted(ours.wrap(RESET, BODY, 0.0), 0.0)
    datagram = ours.wrap(head(Opcode.CONTROL_WKC_V1, 1), BODY, 0.0) + WRAPPED_TIME
    assert refusal(lambda: theirs.unwrap_untrusted(datagram, 0.0)) is DropReason.MALFORMED


def test_the_key_cannot_be_exchanged_later() -> None:
    ours, theirs = client(), server()
    theirs.unwrap_untrusted(ours.wrap(RESET, BODY, 0.0), 0.0)
    other = client(TlsCryptV2ClientKey(CLIENT_KEY, WRAPPED_USER))
    for carrier in (RESET, WKC):
        datagram = other.wrap(carrier, BODY, 0.0)
        assert refusal(lambda datagram=datagram: theirs.unwrap_untrusted(datagram, 0.0)) is (  # type: ignore[misc]
            DropReason.BAD_AUTHENTICATION
        )


def test_a_forged_packet_teaches_no_key() -> None:
    """A real WKc, as seen on the wire, behind a packet that its owner did not make."""
    theirs = server()
    forged = TlsCrypt(StaticKey(bytes(256)), Role.CLIENT, unix_time=time).wrap(RESET, BODY, 0.0) + WRAPPED_TIME
    assert refusal(lambda: theirs.unwrap_untrusted(forged, 0.0)) is DropReason.BAD_AUTHENTICATION
    assert theirs.metadata == b""
    own = client(TlsCryptV2ClientKey(CLIENT_KEY, WRAPPED_USER))
    assert theirs.unwrap_untrusted(own.wrap(RESET, BODY, 0.0), 0.0) == (RESET, BODY)


@pytest.mark.parametrize("said", [0, 2, 289, 1025, 65535])
def test_lengths_that_cannot_be(said: int) -> None:
    datagram = RESET + bytes(1200) + said.to_bytes(2)
    assert refusal(lambda: split_untrusted(datagram)) is DropReason.MALFORMED


def test_no_room_before_the_wrapped_key() -> None:
    assert refusal(lambda: split_untrusted(RESET + bytes(287) + (290).to_bytes(2))) is DropReason.TOO_SHORT


# From a configuration.


def config(key: bytes) -> TunnelConfig:
    return TunnelConfig(remotes=(Remote("a"),), control_wrap="tls-crypt-v2", control_wrap_key=key)


def test_both_ends_from_configurations() -> None:
    ours = make_control_wrap(config(serialize_client_key(KEY)), Role.CLIENT, unix_time=time)
    theirs = make_control_wrap(config(serialize_server_key(SERVER_KEY)), Role.SERVER, unix_time=time, force_cookie=True)
    assert ours.client_reset is theirs.client_reset is Opcode.CONTROL_HARD_RESET_CLIENT_V3
    assert (ours.overhead, ours.wrapped_key_size) == (56, 299)
    assert (theirs.overhead, theirs.wrapped_key_size) == (56, 0)
    assert theirs.unwrap_untrusted(ours.wrap(RESET, BODY, 0.0), 0.0) == (RESET, BODY)
    assert theirs.early_flags is EarlyFlag.RESEND_WKC


@pytest.mark.parametrize("role", Role)
def test_the_other_ends_key_file_is_refused(role: Role) -> None:
    wrong = serialize_server_key(SERVER_KEY) if role is Role.CLIENT else serialize_client_key(KEY)
    with pytest.raises(ConfigError, match="tls-crypt-v2") as caught:
        make_control_wrap(config(wrong), role, unix_time=time)
    assert caught.value.directive == "tls-crypt-v2"


def test_keys_stay_secret() -> None:
    assert repr(KEY) == "TlsCryptV2ClientKey()"
