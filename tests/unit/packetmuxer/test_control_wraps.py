"""tls-auth and tls-crypt: known answers, directions, replay, and every bit flipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
from openvpn_packets import (
    CONTROL_TLS_AUTH,
    DYNAMIC_KEY,
    DYNAMIC_TEXT,
    DYNAMIC_WRAPPED,
    RESET_PLAIN,
    RESET_TLS_AUTH,
    RESET_TLS_CRYPT,
    STATIC_KEY,
)

from minivpn_trio.config.model import ControlWrapKind, Remote, TunnelConfig
from minivpn_trio.errors import ConfigError, DropReason, ProtocolError
from minivpn_trio.packet.ids import Role
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.packet.replay import DEFAULT_REPLAY_WINDOW, ReplayWindow
from minivpn_trio.packetmuxer.control_wrap import (
    ControlWrap,
    NoWrap,
    StaticKey,
    TlsCrypt,
    make_control_wrap,
)
from minivpn_trio.packetmuxer.replay_ids import ReplayIDs
from minivpn_trio.packetmuxer.tls_auth import TlsAuth

KEY = StaticKey(STATIC_KEY)
OTHER_KEY = StaticKey(STATIC_KEY[::-1])
KEY_FILE = b"-----BEGIN OpenVPN Static key V1-----\n%s\n-----END OpenVPN Static key V1-----\n" % (
    STATIC_KEY.hex().encode()
)
DIGESTS = {"SHA1": 20, "SHA224": 28, "SHA256": 32, "SHA384": 48, "SHA512": 64}
HEAD = b"\x20ABCDEFGH"
BODY = b"\x00\x00\x00\x00\x01hello"


def at(seconds: float) -> Callable[[], float]:
    return lambda: seconds


def refusal(wrap: ControlWrap, datagram: bytes, now: float = 0.0) -> DropReason:
    with pytest.raises(ProtocolError) as caught:
        wrap.unwrap_untrusted(datagram, now)
    return caught.value.reason


def auth(direction: Literal[0, 1] | None, digest: str = "SHA1", *, time: float = 1000.0) -> TlsAuth:
    return TlsAuth(KEY, direction, digest, unix_time=at(time))


def crypt(role: Role, *, key: StaticKey = KEY, time: float = 1000.0) -> TlsCrypt:
    return TlsCrypt(key, role, unix_time=at(time))


# Known answers: openvpn_packets.py says where they come from.


def test_tls_auth_reads_the_reset_of_the_c_client() -> None:
    assert auth(0).unwrap_untrusted(RESET_TLS_AUTH, 0.0) == (RESET_TLS_AUTH[:9], bytes(5))


def test_tls_auth_reads_a_client_hello() -> None:
    head, body = auth(0).unwrap_untrusted(CONTROL_TLS_AUTH, 0.0)
    assert head[0] >> 3 == Opcode.CONTROL_V1
    assert body[:8].hex() == "0000000001160301"


def test_tls_auth_makes_the_reset_of_the_c_client() -> None:
    assert auth(1, time=0x61D3BF6C + 0.9).wrap(RESET_TLS_AUTH[:9], bytes(5), 0.0) == RESET_TLS_AUTH


def test_tls_crypt_reads_the_reset_of_the_c_client() -> None:
    assert crypt(Role.SERVER).unwrap_untrusted(RESET_TLS_CRYPT, 0.0) == (RESET_TLS_CRYPT[:9], bytes(5))


def test_tls_crypt_makes_the_reset_of_the_c_client() -> None:
    assert crypt(Role.CLIENT, time=0x61D3F8E1).wrap(RESET_TLS_CRYPT[:9], bytes(5), 0.0) == RESET_TLS_CRYPT


def test_dynamic_tls_crypt_is_the_same_construction() -> None:
    # All bytes of the key are the same, so the role makes no difference.
    wrap = crypt(Role.CLIENT, key=StaticKey(DYNAMIC_KEY), time=0)
    assert wrap.wrap(b"", DYNAMIC_TEXT, 0.0) == DYNAMIC_WRAPPED


@pytest.mark.parametrize(
    ("wrap", "datagram"),
    [
        (auth(1), RESET_TLS_AUTH),
        (auth(None), RESET_TLS_AUTH),
        (auth(0, "SHA256"), RESET_TLS_AUTH),
        (auth(0), RESET_TLS_CRYPT),
        (crypt(Role.CLIENT), RESET_TLS_CRYPT),
        (crypt(Role.SERVER, key=OTHER_KEY), RESET_TLS_CRYPT),
    ],
)
def test_the_wrong_key_direction_or_digest(wrap: ControlWrap, datagram: bytes) -> None:
    assert refusal(wrap, datagram) in (DropReason.BAD_AUTHENTICATION, DropReason.TOO_SHORT)


@pytest.mark.parametrize("wrap", [auth(0), crypt(Role.SERVER)])
def test_a_packet_without_a_wrap_is_too_short(wrap: ControlWrap) -> None:
    assert refusal(wrap, RESET_PLAIN) is DropReason.TOO_SHORT


# Both ends.

PAIRS: dict[str, Callable[[], tuple[ControlWrap, ControlWrap]]] = {
    **{
        f"tls-auth {digest} {mine}": lambda digest=digest, mine=mine, yours=yours: (  # type: ignore[misc]
            auth(mine, digest),
            auth(yours, digest),
        )
        for digest in DIGESTS
        for mine, yours in ((1, 0), (0, 1), (None, None))
    },
    "tls-crypt up": lambda: (crypt(Role.CLIENT), crypt(Role.SERVER)),
    "tls-crypt down": lambda: (crypt(Role.SERVER), crypt(Role.CLIENT)),
}
every_pair = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)


@every_pair
def test_what_one_end_wraps_the_other_reads_once(pair: Callable[[], tuple[ControlWrap, ControlWrap]]) -> None:
    sender, receiver = pair()
    for body in (BODY, b"\x00", bytes(1200)):
        datagram = sender.wrap(HEAD, body, 0.0)
        assert datagram[:9] == HEAD
        assert len(datagram) <= len(HEAD + body) + sender.overhead
        assert receiver.unwrap_untrusted(datagram, 0.0) == (HEAD, body)
        assert refusal(receiver, datagram) is DropReason.REPLAY


@every_pair
def test_every_flipped_bit_is_found(pair: Callable[[], tuple[ControlWrap, ControlWrap]]) -> None:
    sender, receiver = pair()
    datagram = sender.wrap(HEAD, BODY, 0.0)
    for position in range(len(datagram)):
        for bit in range(8):
            flipped = bytearray(datagram)
            flipped[position] ^= 1 << bit
            assert refusal(receiver, bytes(flipped)) is DropReason.BAD_AUTHENTICATION
    # None of that moved the replay window.
    assert receiver.unwrap_untrusted(datagram, 0.0) == (HEAD, BODY)


@every_pair
def test_every_cut_and_every_tail_is_found(pair: Callable[[], tuple[ControlWrap, ControlWrap]]) -> None:
    sender, receiver = pair()
    datagram = sender.wrap(HEAD, BODY, 0.0)
    for size in range(len(datagram)):
        assert refusal(receiver, datagram[:size]) in (DropReason.TOO_SHORT, DropReason.BAD_AUTHENTICATION)
    assert refusal(receiver, datagram + b"\x00") is DropReason.BAD_AUTHENTICATION


@pytest.mark.parametrize("make_wrap", [lambda: auth(1), lambda: auth(0), lambda: crypt(Role.CLIENT)])
def test_a_reflected_packet_does_not_authenticate(make_wrap: Callable[[], ControlWrap]) -> None:
    wrap = make_wrap()
    assert refusal(wrap, wrap.wrap(HEAD, BODY, 0.0)) is DropReason.BAD_AUTHENTICATION


def test_a_forgery_does_not_move_the_replay_window() -> None:
    sender, receiver = crypt(Role.CLIENT), crypt(Role.SERVER)
    first = sender.wrap(HEAD, BODY, 0.0)
    forged = first[:9] + (2**32 - 1).to_bytes(4) + (2**32 - 1).to_bytes(4) + first[17:]
    assert refusal(receiver, forged) is DropReason.BAD_AUTHENTICATION
    assert receiver.unwrap_untrusted(first, 0.0) == (HEAD, BODY)


@pytest.mark.parametrize("pair", [PAIRS["tls-auth SHA1 1"], PAIRS["tls-crypt up"]])
def test_reordering_is_fine_within_window_and_time(pair: Callable[[], tuple[ControlWrap, ControlWrap]]) -> None:
    sender, receiver = pair()
    datagrams = [sender.wrap(HEAD, BODY, 0.0) for _ in range(DEFAULT_REPLAY_WINDOW + 6)]
    for datagram in reversed(datagrams[6:]):
        assert receiver.unwrap_untrusted(datagram, 0.0) == (HEAD, BODY)
    for datagram in datagrams:
        assert refusal(receiver, datagram) is DropReason.REPLAY
    late, fresh = (sender.wrap(HEAD, BODY, 0.0) for _ in range(2))
    receiver.unwrap_untrusted(fresh, 1.0)
    assert refusal(receiver, late, 16.5) is DropReason.REPLAY


def test_replay_ids_count_from_one_with_one_time() -> None:
    clock = iter([1234.9])
    ids = ReplayIDs(lambda: next(clock))
    taken = [ids.take() for _ in range(3)]
    assert [int.from_bytes(i[:4]) for i in taken] == [1, 2, 3]
    assert {int.from_bytes(i[4:]) for i in taken} == {1234}


def test_replay_ids_start_over_with_a_later_time() -> None:
    clock = iter([1000.0, 1000.0])
    ids = ReplayIDs(lambda: next(clock), first=0xFFFF_FFFE)
    window = ReplayWindow()
    taken = [ids.take() for _ in range(4)]
    assert [i.hex() for i in taken] == [
        "fffffffe000003e8",
        "ffffffff000003e8",
        "00000001000003e9",
        "00000002000003e9",
    ]
    assert all(window.check_and_update(int.from_bytes(i[:4]), 0.0, int.from_bytes(i[4:])) for i in taken)


def test_replay_ids_may_begin_elsewhere() -> None:
    # What a client with early negotiation sends first (protocol: 0x0f000001).
    assert ReplayIDs(at(1), first=0x0F000001).take().hex() == "0f00000100000001"


def test_every_packet_has_its_own_replay_id() -> None:
    wrap = crypt(Role.CLIENT)
    assert len({wrap.wrap(HEAD, BODY, 0.0) for _ in range(100)}) == 100


# From a configuration.


def config(kind: ControlWrapKind, key: bytes | None = KEY_FILE, **more: object) -> TunnelConfig:
    return TunnelConfig(remotes=(Remote("a"),), control_wrap=kind, control_wrap_key=key, **more)  # type: ignore[arg-type]


def make(settings: TunnelConfig, role: Role) -> ControlWrap:
    return make_control_wrap(settings, role, unix_time=at(1000.0))


def test_no_wrap() -> None:
    wrap = make(config("none", None), Role.CLIENT)
    assert isinstance(wrap, NoWrap)
    assert wrap.overhead == 0
    assert wrap.unwrap_untrusted(wrap.wrap(HEAD, BODY, 0.0), 0.0) == (HEAD, BODY)
    for size in range(9):
        assert refusal(wrap, bytes(size)) is DropReason.TOO_SHORT


@pytest.mark.parametrize("digest", DIGESTS)
def test_tls_auth_from_a_configuration(digest: str) -> None:
    client = make(config("tls-auth", key_direction=1, auth=digest), Role.CLIENT)
    server = make(config("tls-auth", key_direction=0, auth=digest), Role.SERVER)
    assert client.overhead == DIGESTS[digest] + 8
    assert server.unwrap_untrusted(client.wrap(HEAD, BODY, 0.0), 0.0) == (HEAD, BODY)
    assert client.unwrap_untrusted(server.wrap(HEAD, BODY, 0.0), 0.0) == (HEAD, BODY)


def test_tls_crypt_from_a_configuration() -> None:
    client, server = (make(config("tls-crypt"), role) for role in (Role.CLIENT, Role.SERVER))
    assert server.unwrap_untrusted(client.wrap(HEAD, BODY, 0.0), 0.0) == (HEAD, BODY)
    assert client.unwrap_untrusted(server.wrap(HEAD, BODY, 0.0), 0.0) == (HEAD, BODY)


def test_where_nothing_is_configured_it_is_wide() -> None:
    client, server = (make(config("tls-crypt"), role) for role in (Role.CLIENT, Role.SERVER))
    late, *others = [client.wrap(HEAD, BODY, 0.0) for _ in range(2048)]
    server.unwrap_untrusted(others[-1], 0.0)
    assert server.unwrap_untrusted(late, 0.0) == (HEAD, BODY)
    assert refusal(server, late) is DropReason.REPLAY


def test_the_configured_window_is_used() -> None:
    client = make(config("tls-crypt"), Role.CLIENT)
    server = make(config("tls-crypt", replay_window=2), Role.SERVER)
    datagrams = [client.wrap(HEAD, BODY, 0.0) for _ in range(3)]
    server.unwrap_untrusted(datagrams[2], 0.0)
    assert refusal(server, datagrams[0]) is DropReason.REPLAY
    assert server.unwrap_untrusted(datagrams[1], 0.0) == (HEAD, BODY)


@pytest.mark.parametrize(
    ("kind", "key"),
    [("tls-auth", None), ("tls-crypt", b"not a key"), ("tls-auth", b""), ("tls-crypt-v2", KEY_FILE)],
)
def test_configurations_that_cannot_be_used(kind: ControlWrapKind, key: bytes | None) -> None:
    with pytest.raises(ConfigError) as caught:
        make(config(kind, key), Role.CLIENT)
    assert caught.value.directive == kind
