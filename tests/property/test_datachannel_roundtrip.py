"""Whatever the cipher, the framing and the format: what goes in comes out, and nothing else does."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.datachannel.aead import AEAD_ALGORITHMS, AeadOpener, AeadSealer
from minivpn_trio.datachannel.channel import DataChannel
from minivpn_trio.datachannel.keepalive import PING
from minivpn_trio.datachannel.occ import OCC_MAGIC
from minivpn_trio.errors import DropReason
from tests.unit.datachannel.data_keys import CIPHERS, COMPRESSIONS, ipv4, make_pair

OPTIONS = st.fixed_dictionaries(
    {
        "compression": st.sampled_from(COMPRESSIONS),
        "peer_id": st.none() | st.integers(min_value=0, max_value=0xFFFFFF),
        "fragment": st.none() | st.integers(min_value=200, max_value=1500),
        "key_id": st.integers(min_value=0, max_value=7),
        "epoch": st.booleans(),
    }
)
SUITES = st.sampled_from(CIPHERS)


def suited(suite: tuple[str, str], options: dict[str, object]) -> dict[str, object]:
    """``options`` with epochs only where there can be any."""
    return {**options, "epoch": options["epoch"] and "CBC" not in suite[0] and options["peer_id"] is not None}


#: Any bytes are legal packets here, but pings and OCC messages, which are no packets.
PACKETS = st.binary(min_size=1, max_size=1600).filter(lambda p: p != PING and not p.startswith(OCC_MAGIC))
BURSTS = st.lists(PACKETS, min_size=1, max_size=8)

#: Why a packet that was tampered with may be dropped: never because of what is inside it.
TAMPERED = {
    DropReason.BAD_AUTHENTICATION,
    DropReason.TOO_SHORT,
    DropReason.MALFORMED,
    DropReason.UNKNOWN_KEY,
    DropReason.UNEXPECTED_OPCODE,
}


@given(suite=SUITES, options=OPTIONS, bursts=st.lists(BURSTS, min_size=1, max_size=3))
def test_every_packet_comes_back(suite: tuple[str, str], options: dict[str, object], bursts: list[list[bytes]]) -> None:
    client, server = make_pair(cipher=suite[0], auth=suite[1], **suited(suite, options))
    for sender, receiver in ((client, server), (server, client)):
        for burst in bursts:
            assert receiver.decrypt_burst(sender.encrypt_burst(burst, 0.0), 0.0) == burst
        assert not sender.drops
        assert not receiver.drops


@given(
    cipher=st.sampled_from(list(AEAD_ALGORITHMS)),
    header=st.sampled_from([b"\x33", b"\x4b\xab\xcd\xef", b"\x48\x00\x00\x00"]),
    first_id=st.integers(min_value=1, max_value=2**32 - 65),
    # Each with what befalls it.
    fates=st.lists(
        st.tuples(st.binary(min_size=1, max_size=100), st.none() | st.integers(min_value=-1, max_value=40)),
        min_size=1,
        max_size=64,
    ),
)
def test_a_burst_is_its_packets_one_by_one(
    cipher: str, header: bytes, first_id: int, fates: list[tuple[bytes, int | None]]
) -> None:
    """Sealed together or each by itself; opened too, where some are forged (-1) or cut off."""
    texts = [text for text, _ in fates]
    slots = bytes(range(64)), bytes(range(64, 128))
    sealer, opener, single = AeadSealer(cipher, *slots, header), AeadOpener(cipher, *slots), AeadOpener(cipher, *slots)
    sealed = sealer.seal_burst(first_id, texts)
    assert sealed == [sealer.seal_burst(first_id + n, [text])[0] for n, text in enumerate(texts)]
    assert sealer.seal_burst(first_id, [memoryview(text) for text in texts]) == sealed
    ids, opened = opener.open_run_untrusted(sealed, len(header), Counter())
    assert (list(ids), opened) == (list(range(first_id, first_id + len(texts))), texts)
    packets = [
        packet if fate is None else packet[:-1] + bytes([packet[-1] ^ 1]) if fate < 0 else packet[: fate + 1]
        for packet, (_, fate) in zip(sealed, fates, strict=True)
    ]
    drops: Counter[DropReason] = Counter()
    single_drops: Counter[DropReason] = Counter()
    singles = [single.open_run_untrusted([packet], len(header), single_drops) for packet in packets]
    ids, opened = opener.open_run_untrusted(packets, len(header), drops)
    assert ids == tuple(packet_id for few, _ in singles for packet_id in few)
    assert opened == [text for _, few in singles for text in few]
    assert drops == single_drops
    assert opener.failures == single.failures


def accepts_nothing(receiver: DataChannel, datagram: bytes) -> bool:
    """``datagram`` gives no packet, is counted once, and the peer does not pass for alive."""
    before = receiver.next_timeout()
    result = receiver.decrypt_burst([datagram], 5.0)
    # What names the next key waits for it, a while.
    assert receiver.decrypt_burst([], 15.0) == []
    return (
        result == []
        and receiver.drops.total() == 1
        and set(receiver.drops) <= TAMPERED
        and (receiver.next_timeout() == before)
    )


@given(suite=SUITES, options=OPTIONS, packet=PACKETS, data=st.data())
def test_any_flipped_bit_is_noticed(
    suite: tuple[str, str], options: dict[str, object], packet: bytes, data: st.DataObject
) -> None:
    """But for the peer id of CBC packets, and of opcodes that say the same: nothing covers those."""
    client, server = make_pair(cipher=suite[0], auth=suite[1], ping_restart=60.0, **suited(suite, options))
    datagram = client.encrypt_burst([packet], 0.0)[0]
    cbc_v2 = "CBC" in suite[0] and options["peer_id"] is not None
    bit = data.draw(st.integers(min_value=32 if cbc_v2 else 0, max_value=8 * len(datagram) - 1))
    forged = bytearray(datagram)
    forged[bit // 8] ^= 1 << bit % 8
    assert accepts_nothing(server, bytes(forged))


@given(suite=SUITES, options=OPTIONS, packet=PACKETS, data=st.data())
def test_any_truncation_is_noticed(
    suite: tuple[str, str], options: dict[str, object], packet: bytes, data: st.DataObject
) -> None:
    client, server = make_pair(cipher=suite[0], auth=suite[1], ping_restart=60.0, **suited(suite, options))
    datagram = client.encrypt_burst([packet], 0.0)[0]
    length = data.draw(st.integers(min_value=0, max_value=len(datagram) - 1))
    assert accepts_nothing(server, datagram[:length])


@given(suite=SUITES, options=OPTIONS, packet=PACKETS, more=st.binary(min_size=1, max_size=40))
def test_any_lengthening_is_noticed(
    suite: tuple[str, str], options: dict[str, object], packet: bytes, more: bytes
) -> None:
    client, server = make_pair(cipher=suite[0], auth=suite[1], ping_restart=60.0, **suited(suite, options))
    assert accepts_nothing(server, client.encrypt_burst([packet], 0.0)[0] + more)


@given(
    suite=SUITES,
    options=OPTIONS,
    junk=st.lists(
        st.binary(max_size=120)
        | st.tuples(st.sampled_from([6 << 3, 9 << 3, 9 << 3 | 1, 4 << 3]), st.binary(max_size=120)).map(
            lambda parts: bytes(parts[:1]) + parts[1]
        ),
        max_size=20,
    ),
    where=st.integers(min_value=0, max_value=20),
)
def test_junk_never_raises_and_never_harms_its_neighbours(
    suite: tuple[str, str], options: dict[str, object], junk: list[bytes], where: int
) -> None:
    client, server = make_pair(cipher=suite[0], auth=suite[1], **suited(suite, {**options, "fragment": None}))
    good = client.encrypt_burst([ipv4(b"one"), ipv4(b"two")], 0.0)
    burst = [*junk[:where], good[0], *junk[where:], good[1]]
    assert server.decrypt_burst(burst, 0.0) == [ipv4(b"one"), ipv4(b"two")]
    assert server.decrypt_burst([], 15.0) == []
    assert server.drops.total() == len(junk)
    assert server.stats().packets_in == 2


@given(
    options=OPTIONS,
    texts=st.lists(st.binary(max_size=80) | st.sampled_from([PING, OCC_MAGIC, OCC_MAGIC + b"\6"]), max_size=30),
)
def test_a_peer_that_authenticates_may_send_any_plaintext(options: dict[str, object], texts: list[bytes]) -> None:
    """Framings and fragments parse what a broken or malicious server made: no error, no growth."""
    options = suited(("AES-256-GCM", ""), options)
    plain, _ = make_pair(**{**options, "compression": "none", "fragment": None})
    _, server = make_pair(**options)
    for text in texts:
        opened = server.decrypt_burst(plain.encrypt_burst([text], 0.0), 0.0)
        assert all(opened)
        assert sum(map(len, opened)) <= sum(map(len, texts))
    assert server.handle_timeout(100.0) == []
    assert server.next_timeout() is None
