"""The data channel against packets that other implementations made.

Provenance:

- ``vectors/openvpn-2.6.14-sessions.json``: six sessions recorded between Debian's openvpn 2.6.14
  on both ends, with their key material (packets of the client).
- The data channel known answer of OpenVPN's own test_ssl.c (``ovpn_data_channel``, short packet ids).
- The CBC packet of minivpn's data channel tests (internal/datachannel, 5254d68).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from minivpn_trio.datachannel.aead import AeadOpener, AeadSealer
from minivpn_trio.datachannel.cbc import CBC_ALGORITHMS, CbcOpener
from minivpn_trio.datachannel.channel import DataChannel
from minivpn_trio.datachannel.keepalive import PING
from minivpn_trio.errors import DropReason
from minivpn_trio.items import DataChannelKey
from minivpn_trio.packet.ids import KeyID, RandomBytes, Role

VECTORS = Path(__file__).parents[2] / "vectors" / "openvpn-2.6.14-sessions.json"
SESSIONS: dict[str, dict[str, Any]] = json.loads(VECTORS.read_text())

#: What the recorded sessions were configured with.
OPTIONS: dict[str, dict[str, Any]] = {
    "gcm256": {},
    "cbc256_sha256": {"auth": "SHA256"},
    "gcm256_lzo_no": {"compression": "comp-lzo-no"},
    "cbc128_sha1_stub": {"auth": "SHA1", "compression": "stub"},
    "chacha_stubv2": {"compression": "stub-v2"},
    "gcm128_fragment": {"fragment": 1300},
}


def session_key(name: str, role: Role) -> DataChannelKey:
    session = SESSIONS[name]
    key2 = bytes.fromhex(session["key2"])
    slots = [key2[start : start + 64] for start in range(0, 256, 64)]
    if role is Role.SERVER:
        slots = slots[2:] + slots[:2]
    return DataChannelKey(
        key_id=KeyID(0),
        cipher=session["cipher"],
        send_cipher=slots[0],
        send_hmac=slots[1],
        receive_cipher=slots[2],
        receive_hmac=slots[3],
        peer_id=0,
        **{"auth": "SHA1", **OPTIONS[name]},
    )


def ivs_that_come_out_as(ivs: list[bytes], wires: list[bytes], cipher: str, key: bytes, iv_at: int) -> RandomBytes:
    """Randomness that makes a CbcSealer use ``ivs``.

    A packet's IV is the encryption of a random block xored with the last block of the packet before.
    """
    decrypt = Cipher(algorithms.AES(key[: CBC_ALGORITHMS[cipher].key_size]), modes.ECB()).decryptor()
    previous = bytes(16)
    noise = []
    for iv, wire in zip(ivs, wires, strict=True):
        assert wire[iv_at : iv_at + 16] == iv
        noise.append(bytes(a ^ b for a, b in zip(decrypt.update(iv), previous, strict=True)))
        previous = wire[-16:]
    stream = iter(noise)

    def rng(size: int) -> bytes:
        # A single byte is asked for to number fragments; IVs come in blocks.
        return b"".join(next(stream) for _ in range(size // 16)) if size % 16 == 0 else bytes(size)

    return rng


@pytest.mark.parametrize("name", SESSIONS)
def test_the_server_reads_what_openvpn_sent(name: str) -> None:
    channel = DataChannel(role=Role.SERVER, rng=bytes)
    channel.install_key(session_key(name, Role.SERVER), 0.0)
    wires = [bytes.fromhex(packet["wire"]) for packet in SESSIONS[name]["packets"]]
    assert channel.decrypt_burst(wires, 0.0) == []
    # Each recording is ping, ping, OCC EXIT.
    assert channel.stats().pings_in == 2
    assert channel.poll_closed() is not None
    assert not channel.drops


@pytest.mark.parametrize("name", SESSIONS)
def test_the_plaintexts_are_those_recorded(name: str) -> None:
    """Ciphers alone, framings still on."""
    key = session_key(name, Role.SERVER)
    packets = SESSIONS[name]["packets"]
    wires = [bytes.fromhex(packet["wire"]) for packet in packets]
    inners = [bytes.fromhex(packet["inner"]) for packet in packets]
    channel = DataChannel(role=Role.SERVER, rng=bytes)
    opener: AeadOpener | CbcOpener
    if key.cipher in CBC_ALGORITHMS:
        opener = CbcOpener(key.cipher, key.auth, key.receive_cipher, key.receive_hmac)
        inners = [inner[4:] for inner in inners]
    else:
        opener = AeadOpener(key.cipher, key.receive_cipher, key.receive_hmac)
    assert opener.open_run_untrusted(wires, 4, channel.drops) == ((1, 2, 3), inners)


@pytest.mark.parametrize("name", SESSIONS)
def test_the_client_sends_byte_for_byte_what_openvpn_sent(name: str) -> None:
    key = session_key(name, Role.CLIENT)
    packets = SESSIONS[name]["packets"]
    wires = [bytes.fromhex(packet["wire"]) for packet in packets]
    rng: RandomBytes = bytes
    if key.cipher in CBC_ALGORITHMS:
        ivs = [bytes.fromhex(packet["iv"]) for packet in packets]
        mac_size = {"SHA1": 20, "SHA256": 32}[key.auth]
        rng = ivs_that_come_out_as(ivs, wires, key.cipher, key.send_cipher, 4 + mac_size)
    channel = DataChannel(role=Role.CLIENT, rng=rng)
    channel.install_key(key, 0.0)
    assert channel.encrypt_burst([PING, PING], 0.0) == wires[:2]
    assert channel.goodbye(0.0) == wires[2:]


def kat_key() -> bytes:
    """test_ssl.c fills the key2 structure with this pattern."""
    pattern = b"abcdefgh01234567ABCDEFGHjkuchenl"
    return bytes(pattern[n % 32] ^ (n & 0xFF) for n in range(256))


KAT_TEXT = b"The quick little fox jumps over the bureaucratic hurdles"
KAT_WIRE = bytes.fromhex(
    "07000017000000011fdd908f0e9dc25e79d832020d58e73f2262f977d6bb2118fa0ea82e6b1706d949aefcb5efcbbacd"
    "5c09a9ab45f4d391d3f68794cb0b82c3d33389b61622b3281598e2ff6d5cc38b"
)


def test_openvpn_unit_test_of_the_data_channel() -> None:
    """The header there is the arbitrary 07000017, so this drives the ciphers directly."""
    material = kat_key()
    cipher_slot, hmac_slot = material[:64], material[64:128]
    sealer = AeadSealer("AES-256-GCM", cipher_slot, hmac_slot, KAT_WIRE[:4])
    assert sealer.seal_burst(1, [KAT_TEXT]) == [KAT_WIRE]
    channel = DataChannel(role=Role.CLIENT, rng=bytes)
    opener = AeadOpener("AES-256-GCM", cipher_slot, hmac_slot)
    assert opener.open_run_untrusted([KAT_WIRE], 4, channel.drops) == ((1,), [KAT_TEXT])


MINIVPN_CBC = bytes.fromhex(
    "48000000fdf9b069b2e5a637fa7b5c9231166ea96307e4123031323334353637383930313233343581e4878c5eec602c2d2f5a95139c84af"
)


def test_minivpn_cbc_packet() -> None:
    """AES-128-CBC with SHA1, cipher key 0x65 * 16, HMAC key 0x67 * 20, IV "0123456789012345".

    Its plaintext is 16 bytes FF, which is no PKCS #7 padding: the HMAC must be found right and the
    padding wrong. With the header's peer id changed, which the HMAC does not cover, the same.
    """
    channel = DataChannel(role=Role.CLIENT, rng=bytes)
    opener = CbcOpener("AES-128-CBC", "SHA1", bytes([0x65]) * 64, bytes([0x67]) * 64)
    other_peer_id = b"\x48\x01\x02\x03" + MINIVPN_CBC[4:]
    assert opener.open_run_untrusted([MINIVPN_CBC, other_peer_id], 4, channel.drops) == ((), [])
    assert channel.drops == {DropReason.MALFORMED: 2}
    assert opener.failures == 0


@pytest.mark.parametrize("position", range(4, len(MINIVPN_CBC)))
def test_minivpn_cbc_packet_with_a_changed_byte(position: int) -> None:
    channel = DataChannel(role=Role.CLIENT, rng=bytes)
    opener = CbcOpener("AES-128-CBC", "SHA1", bytes([0x65]) * 64, bytes([0x67]) * 64)
    forged = bytearray(MINIVPN_CBC)
    forged[position] ^= 1
    assert opener.open_run_untrusted([bytes(forged)], 4, channel.drops) == ((), [])
    assert channel.drops == {DropReason.BAD_AUTHENTICATION: 1}
    assert opener.failures == 1
