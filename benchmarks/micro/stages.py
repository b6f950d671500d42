"""What a packet costs in each stage of the hot path, in units of a calibration that runs in turn with it.

A unit is what this machine needs, at this moment, for one packet's worth of the three things that the hot
path is made of: steps of the interpreter, one encryption by the library, one sum over a payload. So the ratio says
little about the machine and much about the code. Each round times unit and stage one after the other; the
figure of a stage is the lower quartile of its rounds, since whatever else the machine does only adds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from minivpn_trio.datachannel.channel import DataChannel
from minivpn_trio.items import DataChannelKey
from minivpn_trio.networkio.framing import FrameReader, frame_burst
from minivpn_trio.networkio.udp import MAX_TRAIN_SEGMENTS
from minivpn_trio.packet.ids import KeyID, Role
from tests.simulation.tcp_world import Link, World

__all__ = ["BASELINE", "BURST", "SIZE", "STAGES", "Figure", "Work", "measure"]

#: Units of each stage, as kept.
BASELINE = Path(__file__).with_name("baseline.json")

BURST = MAX_TRAIN_SEGMENTS
SIZE = 1400
#: Of the interpreter, in a unit.
STEPS = 40

#: One call handles one burst. Made for so many rounds, no packet comes twice.
Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Figure:
    """Of one stage: microseconds a packet here and now, and units."""

    microseconds: float
    units: float


def calibration() -> Work:
    """One burst's worth of units."""
    encrypt = AESGCM(bytes(32)).encrypt
    payload, nonce = random.Random(1).randbytes(SIZE), bytes(12)

    def work() -> None:
        for _ in range(BURST):
            total = int.from_bytes(payload, "big") % 65535
            for step in range(STEPS):
                total += step & 7
            encrypt(nonce, payload, None)

    return work


def packets() -> list[bytes]:
    """A burst of what looks like IP packets."""
    return [b"\x45" + random.Random(number).randbytes(SIZE - 1) for number in range(BURST)]


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
        return lambda: client.encrypt_burst(burst, 1.0)

    return make


def decrypting(cipher: str) -> Callable[[int], Work]:
    """``datachannel`` on the way up."""

    def make(rounds: int) -> Work:
        client, server = channel_pair(cipher)
        sealed: Iterator[list[bytes]] = iter([client.encrypt_burst(packets(), 1.0) for _ in range(rounds)])

        def work() -> None:
            assert len(server.decrypt_burst(next(sealed), 1.0)) == BURST

        return work

    return make


def unframing(rounds: int) -> Work:
    """The length prefixes of a stream, both ways."""
    reader, burst = FrameReader(), packets()

    def work() -> None:
        assert len(reader.feed_untrusted(frame_burst(burst))) == BURST

    return work


def world() -> World:
    """Two stacks in the same world each time."""
    return World(up=Link(delay=0.0001), down=Link(delay=0.0001), mtu=SIZE)


def receiving(rounds: int) -> Work:
    """``netstack`` on the way up: a burst of one flow's segments in, its bytes read, its acknowledgement out."""
    # The same numbers twice: what one world sent, its twin receives.
    twin = world()
    ours, theirs = twin.connect()
    payload = bytes(BURST * 1200)
    bursts = []
    for _ in range(rounds):
        theirs.write(payload, twin.now)
        burst = []
        while sent := twin.b.take_output(now=twin.now):
            burst += sent
            twin.a.handle_packets(sent, twin.now)
            ours.read(1 << 22, twin.now)
            while acks := twin.a.take_output(now=twin.now):
                twin.b.handle_packets(acks, twin.now)
        bursts.append(burst)
    again = world()
    ours, _ = again.connect()
    stack, now = again.a, again.now
    ready = iter(bursts)

    def work() -> None:
        stack.handle_packets(next(ready), now)
        assert len(ours.read(1 << 22, now)) == len(payload)
        stack.take_output(now=now)

    return work


def sending(rounds: int) -> Work:
    """``netstack`` on the way down: written bytes to trains of segments, and the acknowledgement of the last."""
    there = world()
    ours, theirs = there.connect()
    payload = bytes(BURST * 1200)
    acks: list[bytes] = []

    def work() -> None:
        there.a.handle_packets(acks, there.now)
        ours.write(payload, there.now)
        acks.clear()
        size = 0
        while size < len(payload):
            sent = there.a.take_output(now=there.now)
            there.b.handle_packets(sent, there.now)
            size += len(theirs.read(1 << 22, there.now))
            acks.extend(there.b.take_output(now=there.now))
            if size < len(payload):
                there.a.handle_packets(acks, there.now)
                acks.clear()

    return work


STAGES: dict[str, Callable[[int], Work]] = {
    "datachannel.encrypt AES-256-GCM": encrypting("AES-256-GCM"),
    "datachannel.decrypt AES-256-GCM": decrypting("AES-256-GCM"),
    "datachannel.encrypt CHACHA20-POLY1305": encrypting("CHACHA20-POLY1305"),
    "datachannel.decrypt CHACHA20-POLY1305": decrypting("CHACHA20-POLY1305"),
    "networkio.framing": unframing,
    "netstack.receive": receiving,
    "netstack.send and the peer's side": sending,
}


def measure(name: str, rounds: int) -> Figure:
    """The figure of one stage."""
    unit, work = calibration(), STAGES[name](rounds + 1)
    clock = time.perf_counter
    unit(), work()
    times: list[float] = []
    ratios: list[float] = []
    for _ in range(rounds):
        start = clock()
        unit()
        middle = clock()
        work()
        end = clock()
        times.append((end - middle) / BURST * 1e6)
        ratios.append((end - middle) / (middle - start))
    times.sort()
    ratios.sort()
    return Figure(times[rounds // 4], ratios[rounds // 4])
