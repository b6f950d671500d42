"""What a packet costs in each stage of the hot path, in units of a calibration that runs in turn with it
(calibration.py).

STAGES are the interpreter's work and the cipher's; they are held against ``baseline.json`` by a test. KERNEL_STAGES are
mostly system calls, whose price is the kernel's, its mitigations' and its host's; they are shown only.
"""

from __future__ import annotations

import importlib
import random
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from minivpn_trio.datachannel.channel import DataChannel
from minivpn_trio.items import DataChannelKey
from minivpn_trio.netstack import sums
from minivpn_trio.networkio.framing import FrameReader, frame_burst
from minivpn_trio.networkio.udp import UDPTransport
from minivpn_trio.packet.codec import ControlPacket, serialize_control
from minivpn_trio.packet.ids import KeyID, PacketID, Role, SessionID
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.packetmuxer.control_wrap import NoWrap
from minivpn_trio.packetmuxer.muxer import PacketMuxer

from .calibration import BURST, Figure, Work, calibration, compare, packets
from .tcp_stages import receiving, sending, sending_by_rate

__all__ = ["BASELINE", "KERNEL_STAGES", "STAGES", "measure"]

#: Units of each stage, as kept.
BASELINE = Path(__file__).with_name("baseline.json")
#: Bursts of a round where a single one is too short for the clock.
MANY = 50
WITH_NUMPY = ", numpy"


def channel_pair(cipher: str) -> tuple[DataChannel, DataChannel]:
    """Client and server with a key in common."""
    slots = [random.Random(number).randbytes(64) for number in range(4)]
    channels = []
    for role, view in ((Role.CLIENT, slots), (Role.SERVER, slots[2:] + slots[:2])):
        channel = DataChannel(role=role, rng=random.Random(5).randbytes)
        send_cipher, send_hmac, receive_cipher, receive_hmac = view
        key = DataChannelKey(
            key_id=KeyID(0), cipher=cipher, auth="SHA256", send_cipher=send_cipher, send_hmac=send_hmac,
            receive_cipher=receive_cipher, receive_hmac=receive_hmac, peer_id=0,
        )  # fmt: skip
        channel.install_key(key, 0.0)
        channels.append(channel)
    return channels[0], channels[1]


def encrypting(cipher: str) -> Callable[[int], Work]:
    """``datachannel`` on the way down."""

    def make(rounds: int) -> Work:
        client, _ = channel_pair(cipher)
        burst = packets()
        return lambda: len(client.encrypt_burst(burst, 1.0))

    return make


def decrypting(cipher: str) -> Callable[[int], Work]:
    """``datachannel`` on the way up."""

    def make(rounds: int) -> Work:
        client, server = channel_pair(cipher)
        sealed: Iterator[list[bytes]] = iter([client.encrypt_burst(packets(), 1.0) for _ in range(rounds)])

        def work() -> int:
            opened = len(server.decrypt_burst(next(sealed), 1.0))
            assert opened == BURST
            return opened

        return work

    return make


def unframing(rounds: int) -> Work:
    """The length prefixes of a stream, both ways."""
    reader, burst = FrameReader(), packets()

    def work() -> int:
        count = len(reader.feed_untrusted(frame_burst(burst)))
        assert count == BURST
        return count

    return work


def sorting(rounds: int) -> Work:
    """``packetmuxer`` on the way up: that all of a burst is data."""
    muxer = PacketMuxer(role=Role.CLIENT, wrap=NoWrap(), rng=random.Random(1).randbytes)
    reset = ControlPacket(
        opcode=Opcode.CONTROL_HARD_RESET_SERVER_V2, key_id=KeyID(0), session_id=SessionID(b"theirs.."),
        acks=(PacketID(0),), peer_session_id=muxer.local_session_id, packet_id=PacketID(0),
    )  # fmt: skip
    assert muxer.handle_datagrams([b"".join(serialize_control(reset))], 0.0).bound
    # DATA_V2 of key 0, of peer 0.
    burst = [b"\x48\x00\x00\x00" + packet for packet in packets()]
    assert muxer.handle_datagrams(burst, 1.0).data is burst

    def work() -> int:
        for _ in range(MANY):
            muxer.handle_datagrams(burst, 1.0)
        return MANY * BURST

    return work


def datagrams(rounds: int) -> Work:
    """``networkio`` over UDP: a train out by one call, over the loopback device, and its datagrams in, one by one."""
    ends = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for end in ends:
        end.bind(("127.0.0.1", 0))
    for end, other in zip(ends, reversed(ends), strict=True):
        end.connect(other.getsockname())
    sender, receiver = map(UDPTransport, ends)
    burst = packets()

    def work() -> int:
        assert sender.send_some(burst) == BURST
        count = 0
        while count < BURST:
            arrived = len(receiver._drain())
            assert arrived or select.select([ends[1]], [], [], 1.0)[0], "datagrams were lost"
            count += arrived
        return count

    return work


STAGES: dict[str, Callable[[int], Work]] = {
    "datachannel.encrypt AES-256-GCM": encrypting("AES-256-GCM"),
    "datachannel.decrypt AES-256-GCM": decrypting("AES-256-GCM"),
    "datachannel.encrypt CHACHA20-POLY1305": encrypting("CHACHA20-POLY1305"),
    "datachannel.decrypt CHACHA20-POLY1305": decrypting("CHACHA20-POLY1305"),
    "networkio.framing": unframing,
    "packetmuxer": sorting,
    "netstack.receive": receiving,
    "netstack.send and the peer's side": sending,
    "netstack.send by BBR": sending_by_rate,
    # As with the extra `fast`.
    "netstack.receive" + WITH_NUMPY: receiving,
    "netstack.send by BBR" + WITH_NUMPY: sending_by_rate,
}
KERNEL_STAGES: dict[str, Callable[[int], Work]] = {"networkio.udp, out and in": datagrams}


def measure(name: str, rounds: int) -> Figure:
    """The figure of one stage, with numpy only if its name says so."""
    make = STAGES[name] if name in STAGES else KERNEL_STAGES[name]
    numpy = importlib.import_module("numpy") if name.endswith(WITH_NUMPY) else None
    before = sums.use(numpy)
    try:
        return compare(calibration(), make(rounds + 1), rounds)
    finally:
        sums.use(before)
