"""DataChannel: what it carries, what it swallows, what it drops and why."""

from __future__ import annotations

import hmac
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from minivpn_trio.datachannel import keyslots, limits
from minivpn_trio.datachannel.aead import AEAD_ALGORITHMS
from minivpn_trio.datachannel.keepalive import PING
from minivpn_trio.datachannel.occ import OCC_MAGIC, OccOp
from minivpn_trio.errors import ConfigError, DropReason
from minivpn_trio.events import SessionState
from minivpn_trio.packet.ids import Role
from minivpn_trio.tracing import BurstTraced, TraceRecord
from tests.unit.datachannel.data_keys import CIPHERS, COMPRESSIONS, ipv4, make_channel, make_keys, make_pair

PACKETS = [ipv4(b"packet %d" % n) for n in range(64)]


@pytest.mark.parametrize(("cipher", "auth"), CIPHERS)
@pytest.mark.parametrize("peer_id", [None, 0, 0xABCDEF])
def test_a_burst_goes_there_and_back(cipher: str, auth: str, peer_id: int | None) -> None:
    client, server = make_pair(cipher=cipher, auth=auth, peer_id=peer_id)
    datagrams = client.encrypt_burst(PACKETS, 0.0)
    header = bytes([6 << 3]) if peer_id is None else bytes([9 << 3]) + peer_id.to_bytes(3, "big")
    assert all(datagram.startswith(header) for datagram in datagrams)
    assert len(set(datagrams)) == 64
    assert server.decrypt_burst(datagrams, 0.0) == PACKETS
    assert client.decrypt_burst(server.encrypt_burst(PACKETS, 0.0), 0.0) == PACKETS
    assert not client.drops
    assert not server.drops
    size = sum(map(len, PACKETS))
    stats = client.stats()
    assert (stats.packets_in, stats.packets_out, stats.bytes_in, stats.bytes_out) == (64, 64, size, size)
    assert stats.keys_installed == 1


def test_equal_packets_look_different_every_time() -> None:
    for cipher, auth in CIPHERS:
        client, _ = make_pair(cipher=cipher, auth=auth)
        datagrams = client.encrypt_burst([PACKETS[0]] * 32, 0.0) + client.encrypt_burst([PACKETS[0]] * 32, 0.0)
        assert len({datagram[4:20] for datagram in datagrams}) == 64
        assert len({datagram[-16:] for datagram in datagrams}) == 64


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("compression", ["none", "comp-lzo-no", "stub", "stub-v2"])
@pytest.mark.parametrize("fragment", [None, 70])
@pytest.mark.parametrize("cipher", ["AES-256-GCM", "AES-256-CBC"])
def test_packets_may_be_held_in_any_buffer(
    kind: Callable[[bytes], bytes], compression: str, fragment: int | None, cipher: str
) -> None:
    client, server = make_pair(compression=compression, fragment=fragment, cipher=cipher, auth="SHA1")
    packets = [ipv4(bytes(100)), b"\x50\x00" + bytes(20)]
    assert server.decrypt_burst(client.encrypt_burst([kind(packet) for packet in packets], 0.0), 0.0) == packets


def test_a_peer_id_that_changes_is_accepted_if_it_authenticates() -> None:
    """The other side may number us anew at any time; the associated data is what arrived."""
    client = make_channel()
    server = make_channel(Role.SERVER)
    client.install_key(make_keys(peer_id=1)[0], 0.0)
    server.install_key(make_keys(peer_id=2)[1], 0.0)
    assert server.decrypt_burst(client.encrypt_burst(PACKETS, 0.0), 0.0) == PACKETS
    datagram = client.encrypt_burst(PACKETS[:1], 0.0)[0]
    assert server.decrypt_burst([datagram[:1] + b"\0\0\x09" + datagram[4:]], 0.0) == []
    assert server.drops == {DropReason.BAD_AUTHENTICATION: 1}


def test_both_formats_are_accepted_side_by_side() -> None:
    client, other = make_channel(), make_channel()
    server = make_channel(Role.SERVER)
    client.install_key(make_keys(peer_id=None)[0], 0.0)
    other.install_key(make_keys(peer_id=3)[0], 0.0)
    server.install_key(make_keys()[1], 0.0)
    old = client.encrypt_burst(PACKETS[:2], 0.0)
    new = other.encrypt_burst(PACKETS[:4], 0.0)[2:]
    assert server.decrypt_burst([old[0], new[0], old[1], new[1]], 0.0) == [
        PACKETS[0],
        PACKETS[2],
        PACKETS[1],
        PACKETS[3],
    ]


def test_nothing_is_sent_before_the_first_key() -> None:
    channel = make_channel()
    assert channel.encrypt_burst(PACKETS, 0.0) == []
    assert channel.goodbye(0.0) == []
    assert channel.drops == {DropReason.NOT_READY: 65}
    assert channel.stats().packets_out == 0
    assert channel.next_timeout() is None
    assert channel.handle_timeout(0.0) == []


@pytest.mark.parametrize("options", [{"compression": name} for name in COMPRESSIONS] + [{"fragment": 400}], ids=str)
def test_what_is_counted_is_ip_packets_without_framings_and_messages(options: dict[str, object]) -> None:
    client, server = make_pair(**options)
    size = sum(map(len, PACKETS))
    sealed = client.encrypt_burst([*PACKETS, PING], 0.0)
    # Two runs: what names another key is between.
    assert server.decrypt_burst([*sealed[:20], b"\x4f" + bytes(60), *sealed[20:]], 0.0) == PACKETS
    assert (server.stats().packets_in, server.stats().bytes_in, server.stats().pings_in) == (64, size, 1)
    assert (client.stats().packets_out, client.stats().bytes_out) == (65, size + len(PING))
    sent, received = client._slots.newest, server._slots.newest
    assert sent is not None
    assert received is not None
    framed = size + len(PING) + 65 * sent.frame_size
    assert (sent.usage.bytes_out, received.usage.bytes_in) == (framed, framed)


def test_nothing_is_read_before_the_first_key() -> None:
    client, _ = make_pair()
    channel = make_channel()
    assert channel.decrypt_burst(client.encrypt_burst(PACKETS, 0.0), 0.0) == []
    assert channel.drops == {DropReason.UNKNOWN_KEY: 64}


def test_every_drop_has_its_reason() -> None:
    client, server = make_pair()
    good = client.encrypt_burst(PACKETS, 0.0)
    other_key = make_channel()
    other_key.install_key(make_keys(key_id=3)[0], 0.0)
    burst = [
        b"",
        bytes([4 << 3]) + good[0][1:],
        bytes([31 << 3]),
        *other_key.encrypt_burst(PACKETS[:1], 0.0),
        good[0][:1],
        good[0][:7],
        good[0][:24],
        good[0][:-1],
        good[0],
        good[0],
    ]
    assert server.decrypt_burst(burst, 0.0) == PACKETS[:1]
    assert server.drops == {
        DropReason.TOO_SHORT: 4,
        DropReason.UNEXPECTED_OPCODE: 2,
        DropReason.UNKNOWN_KEY: 1,
        DropReason.BAD_AUTHENTICATION: 1,
        DropReason.REPLAY: 1,
    }


def test_forgeries_in_a_burst_cost_only_themselves() -> None:
    for cipher, auth in CIPHERS:
        client, server = make_pair(cipher=cipher, auth=auth)
        datagrams = client.encrypt_burst(PACKETS, 0.0)
        forged = list(datagrams)
        for index in (17, 18, 40):
            forged[index] = datagrams[index][:-1] + bytes([datagrams[index][-1] ^ 0x80])
        assert server.decrypt_burst(forged, 0.0) == PACKETS[:17] + PACKETS[19:40] + PACKETS[41:]
        assert server.drops == {DropReason.BAD_AUTHENTICATION: 3}
        # Their ids are still free for the real ones.
        assert server.decrypt_burst(datagrams, 0.0) == [PACKETS[17], PACKETS[18], PACKETS[40]]


@pytest.mark.parametrize(
    "plaintext",
    [
        bytes(15) + b"\0",
        bytes(15) + b"\x11",
        bytes(14) + b"\1\2",
        # Padding that leaves no room for a packet id, and one that leaves room for nothing else.
        b"\0\0\0" + b"\x0d" * 13,
        b"\x10" * 16,
    ],
)
def test_authentic_cbc_packets_with_broken_padding_are_dropped(plaintext: bytes) -> None:
    server_key = make_keys(cipher="AES-256-CBC", auth="SHA1")[1]
    server = make_channel(Role.SERVER)
    server.install_key(server_key, 0.0)
    iv = bytes(range(16))
    context = Cipher(algorithms.AES(server_key.receive_cipher[:32]), modes.CBC(iv)).encryptor()
    box = iv + context.update(plaintext)
    mac = hmac.digest(server_key.receive_hmac[:20], box, "sha1")
    assert server.decrypt_burst([b"\x48\0\0\0" + mac + box], 0.0) == []
    assert server.drops == {DropReason.MALFORMED: 1}
    assert server.stats().packets_in == 0


def test_a_forged_packet_id_does_not_move_the_window() -> None:
    """Authenticate first, then check for replay."""
    client, server = make_pair()
    datagrams = client.encrypt_burst(PACKETS, 0.0)
    forged = datagrams[0][:4] + b"\xff\xff\xff\xf0" + datagrams[0][8:]
    assert server.decrypt_burst([forged], 0.0) == []
    assert server.decrypt_burst(datagrams, 0.0) == PACKETS


def test_empty_packets_are_not_sent() -> None:
    client, server = make_pair()
    datagrams = client.encrypt_burst([b"", PACKETS[0], b""], 0.0)
    assert server.decrypt_burst(datagrams, 0.0) == PACKETS[:1]
    assert client.drops == {DropReason.TOO_SHORT: 2}
    assert client.encrypt_burst([], 0.0) == client.encrypt_burst([b""], 0.0) == []
    assert client.decrypt_burst([], 0.0) == []


@pytest.mark.parametrize("framing", [{}, {"compression": "stub"}, {"compression": "stub-v2", "fragment": 1300}])
def test_pings_are_swallowed_and_not_answered(framing: dict[str, object]) -> None:
    client, server = make_pair(**framing)
    packets = [PACKETS[0], PING, PACKETS[1]]
    assert server.decrypt_burst(client.encrypt_burst(packets, 0.0), 0.0) == PACKETS[:2]
    assert server.stats().pings_in == 1
    assert server.handle_timeout(0.0) == []
    assert not server.drops


def test_only_the_exact_ping_is_a_ping() -> None:
    client, server = make_pair()
    like_pings = [PING[:-1], PING + b"\0", b"\x45" + PING[1:], bytes(16)]
    assert server.decrypt_burst(client.encrypt_burst(like_pings, 0.0), 0.0) == like_pings
    assert server.stats().pings_in == 0


def test_occ_messages_are_swallowed() -> None:
    client, server = make_pair()
    messages = [OCC_MAGIC, *(OCC_MAGIC + bytes([op]) + b"more" for op in OccOp if op is not OccOp.EXIT)]
    assert server.decrypt_burst(client.encrypt_burst(messages, 0.0), 0.0) == []
    assert server.poll_closed() is None
    assert not server.drops


@pytest.mark.parametrize(("role", "restart"), [(Role.CLIENT, True), (Role.SERVER, False)])
def test_occ_exit_ends_the_tunnel_after_what_came_before(role: Role, restart: bool) -> None:
    client, server = make_pair()
    sender, receiver = (server, client) if role is Role.CLIENT else (client, server)
    woken: list[bool] = []
    receiver.on_wakeup = lambda: woken.append(True)
    burst = sender.encrypt_burst(PACKETS[:3], 0.0) + sender.goodbye(0.0)
    assert receiver.decrypt_burst(burst, 0.0) == PACKETS[:3]
    closed = receiver.poll_closed()
    assert closed is not None
    assert closed.restart is restart
    assert woken


def test_compressed_packets_are_dropped() -> None:
    client, server = make_channel(), make_channel(Role.SERVER)
    client.install_key(make_keys(compression="none")[0], 0.0)
    server.install_key(make_keys(compression="comp-lzo-no")[1], 0.0)
    burst = client.encrypt_burst([b"\x66lzo", b"\x69lz4", b"\xfa" + PACKETS[0], b"\x00what"], 0.0)
    assert server.decrypt_burst(burst, 0.0) == PACKETS[:1]
    assert server.drops == {DropReason.COMPRESSED: 2, DropReason.MALFORMED: 1}


def test_packet_ids_never_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the ids are used up nothing more is sent, whatever the caller does."""
    monkeypatch.setattr(limits, "LAST_ID", 100)
    for cipher in ("AES-256-GCM", "AES-256-CBC"):
        client, server = make_pair(cipher=cipher)
        first = client.encrypt_burst(PACKETS, 0.0)
        second = client.encrypt_burst(PACKETS, 0.0)
        assert len(first) + len(second) == 100
        assert server.decrypt_burst(first, 0.0) + server.decrypt_burst(second, 0.0) == PACKETS + PACKETS[:36]
        assert client.encrypt_burst(PACKETS, 0.0) == []
        assert client.goodbye(0.0) == []
        assert client.drops == {DropReason.LIMIT: 28 + 64 + 1}


def test_a_used_up_key_hands_over_to_its_successor_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LAST_ID", 64)
    client, server = make_pair()
    new = make_keys(key_id=1, seed=2, send_after=30.0)
    client.install_key(new[0], 0.0)
    server.install_key(new[1], 0.0)
    assert {datagram[0] & 7 for datagram in client.encrypt_burst(PACKETS, 0.0)} == {0}
    assert client.encrypt_burst(PACKETS[:1], 0.0) == []
    third = client.encrypt_burst(PACKETS, 0.0)
    assert {datagram[0] & 7 for datagram in third} == {1}
    assert server.decrypt_burst(third, 0.0) == PACKETS


def test_a_new_key_is_wanted_when_ids_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ID_TRIGGER", 65)
    client, _ = make_pair()
    woken: list[bool] = []
    client.on_wakeup = lambda: woken.append(True)
    client.encrypt_burst(PACKETS, 0.0)
    assert client.poll_rekey() is None
    client.encrypt_burst(PACKETS[:1], 0.0)
    assert client.poll_rekey() == client.poll_rekey() == "packet ids are running out"
    client.encrypt_burst(PACKETS, 0.0)
    assert woken == [True]
    client.install_key(make_keys(key_id=1, seed=2, send_after=10.0)[0], 0.0)
    assert client.poll_rekey() is None
    client.encrypt_burst(PACKETS, 0.0)
    assert client.poll_rekey() is None, "the old key still sends, but has its successor already"


def test_the_cipher_limit_asks_for_a_key_and_then_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    constructor, size, _ = AEAD_ALGORITHMS["AES-256-GCM"]
    # A packet here is a block and two counts: three.
    monkeypatch.setitem(AEAD_ALGORITHMS, "AES-256-GCM", (constructor, size, 160))
    client, server = make_pair()
    packet = ipv4(bytes(15))
    sent = client.encrypt_burst([packet] * 46, 0.0)
    assert client.poll_rekey() is None
    sent += client.encrypt_burst([packet], 0.0)
    assert client.poll_rekey() is not None
    server.decrypt_burst(sent, 0.0)
    assert server.poll_rekey() is not None
    sent = client.encrypt_burst([packet] * 7, 0.0)
    assert len(sent) == 7
    assert client.encrypt_burst([packet], 0.0) == []
    assert client.drops == {DropReason.LIMIT: 1}


@pytest.mark.parametrize("option", [{"reneg_bytes": 6400}, {"reneg_packets": 64}])
def test_the_users_limits_count_both_directions(option: dict[str, int]) -> None:
    client, server = make_pair(**option)
    burst = [ipv4(bytes(99))] * 32
    client.encrypt_burst(burst, 0.0)
    assert client.poll_rekey() is None
    client.decrypt_burst(server.encrypt_burst(burst, 0.0), 0.0)
    assert client.poll_rekey() == ("reneg-bytes" if "reneg_bytes" in option else "reneg-pkts")


def test_too_many_forgeries_retire_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAILURE_TRIGGER", 5)
    monkeypatch.setattr(keyslots, "FAILURE_LIMIT", 10)
    client, server = make_pair()
    good = client.encrypt_burst(PACKETS, 0.0)
    forged = good[0][:-1] + bytes([good[0][-1] ^ 1])
    server.decrypt_burst([forged] * 4, 0.0)
    assert server.poll_rekey() is None
    server.decrypt_burst([forged], 0.0)
    assert server.poll_rekey() == "too many forged packets"
    server.decrypt_burst([forged] * 5, 0.0)
    assert server.decrypt_burst(good, 0.0) == []
    assert server.drops == {DropReason.BAD_AUTHENTICATION: 10, DropReason.LIMIT: 64}


def test_limits_are_those_of_openvpn() -> None:
    usage = limits.KeyUsage(block_limit=2**36 - 1)
    usage.packets_out = 0xFF000000 - 1
    assert usage.rekey_reason() is None
    usage.packets_out += 1
    assert usage.rekey_reason() is not None
    assert usage.room() == 0x00FFFFFF
    usage = limits.KeyUsage(block_limit=2**36 - 1)
    usage.bytes_in = (2**36 // 8 * 7 - 8) * 16
    assert usage.rekey_reason() is None
    usage.bytes_in += 16 * 8
    assert usage.rekey_reason() is not None
    unlimited = limits.KeyUsage(block_limit=None)
    unlimited.bytes_in = unlimited.bytes_out = 2**60
    assert unlimited.rekey_reason() is None
    assert unlimited.rekey_reason(failures=2**35) is not None


@pytest.mark.parametrize(
    "bad",
    [{"cipher": "DES-CBC"}, {"cipher": "AES-256-CBC", "auth": "MD5"}, {"compression": "lzo"}],
)
def test_a_key_that_cannot_be_used_is_refused(bad: dict[str, object]) -> None:
    channel = make_channel()
    with pytest.raises(ValueError, match="not supported"):
        channel.install_key(make_keys(**bad)[0], 0.0)
    assert channel.live_keys == 0


def test_a_fragment_size_without_room_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="fragment"):
        make_channel().install_key(make_keys(fragment=30)[0], 0.0)


class Sink:
    def __init__(self) -> None:
        self.records: list[TraceRecord] = []

    def trace(self, record: TraceRecord) -> None:
        self.records.append(record)


def test_one_trace_record_for_a_burst_and_one_for_each_kind_of_drop() -> None:
    sink = Sink()
    client = make_channel(tracer=sink, session_state=lambda: SessionState.GENERATED_KEYS)
    server = make_channel(Role.SERVER)
    keys = make_keys()
    client.install_key(keys[0], 0.0)
    server.install_key(keys[1], 0.0)
    sent = client.encrypt_burst(PACKETS, 3.0)
    size = sum(map(len, sent))
    stage = SessionState.GENERATED_KEYS
    assert sink.records == [BurstTraced(time=3.0, stage=stage, direction="out", packets=64, size=size)]
    sink.records.clear()
    burst = server.encrypt_burst(PACKETS[:2], 4.0)
    client.decrypt_burst([*burst, burst[0]], 4.0)
    received, dropped = sink.records
    assert received == BurstTraced(time=4.0, stage=stage, direction="in", packets=3, size=3 * len(burst[0]))
    assert dropped == BurstTraced(
        time=4.0, stage=stage, direction="dropped", packets=1, size=len(burst[0]), drop_reason=DropReason.REPLAY
    )


def test_secrets_are_not_shown() -> None:
    keys = make_keys()
    channel = make_channel()
    channel.install_key(keys[0], 0.0)
    assert repr(keys[0].send_cipher[:4])[2:-1] not in repr(keys[0]) + repr(channel)
