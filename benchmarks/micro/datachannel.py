"""Microseconds a packet of the data channel, each way, beside other ways to do the same.

    python -m benchmarks.micro.datachannel [--size BYTES] [--rounds N]

Absolute figures depend on the machine and on who else uses it. So each round
also times a calibration loop (fixed work of the interpreter, no library), the
rounds interleave all contestants, and the last column is the median of
packet time / calibration step, which compares between runs and machines.
"""

from __future__ import annotations

import argparse
import random
import statistics
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from minivpn_trio.datachannel.aead import AeadOpener, AeadSealer
from minivpn_trio.datachannel.channel import DataChannel
from minivpn_trio.items import DataChannelKey
from minivpn_trio.packet.ids import KeyID, Role

BURST = 64
#: Steps of the calibration loop; one is about 25 ns on a machine of 2024.
STEPS = 2_000

Work = Callable[[], object]


def calibrate() -> None:
    total = 0
    for step in range(STEPS):
        total += step & 7


def make_pair(
    cipher: str, compression: str = "none", fragment: int | None = None, epoch: bool = False
) -> tuple[DataChannel, DataChannel]:
    slots = [random.Random(n).randbytes(64) for n in range(4)]
    channels = []
    for role, view in ((Role.CLIENT, slots), (Role.SERVER, slots[2:] + slots[:2])):
        channel = DataChannel(role=role, rng=random.Random(5).randbytes)
        key = DataChannelKey(
            key_id=KeyID(0),
            cipher=cipher,
            auth="SHA256",
            send_cipher=view[0],
            send_hmac=view[1],
            receive_cipher=view[2],
            receive_hmac=view[3],
            peer_id=0,
            compression=compression,
            fragment=fragment,
            epoch=epoch,
        )
        channel.install_key(key, 0.0)
        channels.append(channel)
    return channels[0], channels[1]


def channel_contestants(
    name: str, packets: list[bytes], rounds: int, **options: str | int
) -> Iterator[tuple[str, Work]]:
    """encrypt_burst, and decrypt_burst on bursts prepared beforehand (no packet may come twice)."""
    client, server = make_pair(**options)  # type: ignore[arg-type]
    yield f"{name}: encrypt_burst", lambda: client.encrypt_burst(packets, 1.0)
    sender, _ = make_pair(**options)  # type: ignore[arg-type]
    prepared = iter([sender.encrypt_burst(packets, 1.0) for _ in range(rounds)])

    def decrypt() -> None:
        opened = server.decrypt_burst(next(prepared), 1.0)
        assert len(opened) == len(packets)

    yield f"{name}: decrypt_burst", decrypt


def alternatives(packets: list[bytes]) -> Iterator[tuple[str, Work]]:
    """AES-256-GCM with the tag moved in front: in one loop or step by step; concatenation against buffers filled
    in place, both with the heads there already."""
    slots = bytes(range(64)), bytes(64)
    gcm = AESGCM(slots[0][:32])
    implicit_iv = slots[1][:8]
    sealer, opener = AeadSealer("AES-256-GCM", *slots, b"\x48\0\0\0"), AeadOpener("AES-256-GCM", *slots)
    size = len(packets[0])
    heads = [(0x48000000 << 32 | n).to_bytes(8, "big") for n in range(1, len(packets) + 1)]
    boxes = [gcm.encrypt(head[4:] + implicit_iv, packet, head) for head, packet in zip(heads, packets, strict=True)]
    wires = [head + box[-16:] + box[:-16] for head, box in zip(heads, boxes, strict=True)]

    def library_encrypt() -> None:
        for head, packet in zip(heads, packets, strict=True):
            gcm.encrypt(head[4:] + implicit_iv, packet, head)

    def library_decrypt() -> None:
        for head, box in zip(heads, boxes, strict=True):
            gcm.decrypt(head[4:] + implicit_iv, box, head)

    def stepwise_encrypt() -> list[bytes]:
        return sealer.seal_burst(1, packets)

    def stepwise_decrypt() -> list[bytes]:
        return opener.open_run_untrusted(wires, 4, Counter())[1]

    def one_loop_encrypt() -> list[bytes]:
        sealed = []
        for number, packet in enumerate(packets, 0x48000000 << 32 | 1):
            head = number.to_bytes(8, "big")
            box = gcm.encrypt(head[4:] + implicit_iv, packet, head)
            sealed.append(head + box[-16:] + box[:-16])
        return sealed

    def one_loop_decrypt() -> list[bytes]:
        opened = []
        failed = 0
        ids = [wire[4:8] for wire in wires]
        struct.unpack(f">{len(ids)}I", b"".join(ids))
        for id_, wire in zip(ids, wires, strict=True):
            try:
                opened.append(gcm.decrypt(id_ + implicit_iv, wire[24:] + wire[8:24], wire[:8]))
            except InvalidTag:
                failed += 1
        return opened

    def concatenate_encrypt() -> list[bytes]:
        sealed = []
        for head, packet in zip(heads, packets, strict=True):
            box = gcm.encrypt(head[4:] + implicit_iv, packet, head)
            sealed.append(head + box[-16:] + box[:-16])
        return sealed

    def join_encrypt() -> list[bytes]:
        sealed = []
        for head, packet in zip(heads, packets, strict=True):
            box = memoryview(gcm.encrypt(head[4:] + implicit_iv, packet, head))
            sealed.append(b"".join((head, box[-16:], box[:-16])))
        return sealed

    scratch = memoryview(bytearray(size + 40))

    def scratch_encrypt() -> list[bytes]:
        sealed = []
        for head, packet in zip(heads, packets, strict=True):
            gcm.encrypt_into(head[4:] + implicit_iv, packet, head, scratch[24 : size + 40])
            scratch[8:24] = scratch[size + 24 : size + 40]
            scratch[:8] = head
            sealed.append(bytes(scratch[: size + 24]))
        return sealed

    def slab_encrypt() -> list[memoryview]:
        slab = memoryview(bytearray(len(packets) * (size + 24) + 16))
        sealed = []
        start = 0
        for head, packet in zip(heads, packets, strict=True):
            end = start + size + 24
            gcm.encrypt_into(head[4:] + implicit_iv, packet, head, slab[start + 24 : end + 16])
            slab[start : start + 24] = head + slab[end : end + 16]
            sealed.append(slab[start:end])
            start = end
        return sealed

    def concatenate_decrypt() -> list[bytes]:
        opened = []
        for wire in wires:
            head = wire[:8]
            opened.append(gcm.decrypt(head[4:] + implicit_iv, wire[24:] + wire[8:24], head))
        return opened

    def scratch_decrypt() -> list[bytes]:
        opened = []
        for wire in wires:
            head = wire[:8]
            gcm.decrypt_into(head[4:] + implicit_iv, wire[24:] + wire[8:24], head, scratch[:size])
            opened.append(bytes(scratch[:size]))
        return opened

    def slab_decrypt() -> list[memoryview]:
        slab = memoryview(bytearray(len(packets) * size))
        opened = []
        start = 0
        for wire in wires:
            end = start + size
            head = wire[:8]
            gcm.decrypt_into(head[4:] + implicit_iv, wire[24:] + wire[8:24], head, slab[start:end])
            opened.append(slab[start:end])
            start = end
        return opened

    assert stepwise_encrypt() == one_loop_encrypt() == wires
    assert stepwise_decrypt() == one_loop_decrypt() == packets
    assert concatenate_encrypt() == join_encrypt() == scratch_encrypt() == [bytes(v) for v in slab_encrypt()] == wires
    assert concatenate_decrypt() == scratch_decrypt() == [bytes(view) for view in slab_decrypt()] == packets
    yield "library alone: encrypt", library_encrypt
    yield "library alone: decrypt", library_decrypt
    yield "encrypt, step by step (chosen)", stepwise_encrypt
    yield "encrypt, all steps in one loop", one_loop_encrypt
    yield "encrypt, heads given, concatenate", concatenate_encrypt
    yield "encrypt, heads given, join memoryviews", join_encrypt
    yield "encrypt_into scratch, copy out", scratch_encrypt
    yield "encrypt_into slab, memoryviews out", slab_encrypt
    yield "decrypt, step by step (chosen)", stepwise_decrypt
    yield "decrypt, all steps in one loop", one_loop_decrypt
    yield "decrypt without ids, concatenate", concatenate_decrypt
    yield "decrypt_into scratch, copy out", scratch_decrypt
    yield "decrypt_into slab, memoryviews out", slab_decrypt


def replay_contestants(packets: list[bytes], rounds: int) -> Iterator[tuple[str, Work]]:
    """decrypt_burst where the short ways do not apply."""
    sender, receiver = make_pair("AES-256-GCM")
    swapped = []
    for _ in range(rounds):
        burst = sender.encrypt_burst(packets, 1.0)
        burst[10], burst[30] = burst[30], burst[10]
        swapped.append(burst)
    prepared = iter(swapped)
    yield "AES-256-GCM, two packets swapped: decrypt_burst", lambda: receiver.decrypt_burst(next(prepared), 1.0)
    sender2, receiver2 = make_pair("AES-256-GCM")
    forged = sender2.encrypt_burst(packets, 1.0)
    forged = [packet[:-1] + bytes([packet[-1] ^ 1]) for packet in forged]
    yield "AES-256-GCM, all forged: decrypt_burst", lambda: receiver2.decrypt_burst(forged, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=1400, help="bytes of an IP packet (default: 1400)")
    parser.add_argument("--rounds", type=int, default=200, help="bursts of 64 packets (default: 200)")
    arguments = parser.parse_args()
    packets = [b"\x45" + random.Random(n).randbytes(arguments.size - 1) for n in range(BURST)]
    rounds: int = arguments.rounds

    contestants = [
        *channel_contestants("AES-256-GCM", packets, rounds, cipher="AES-256-GCM"),
        *channel_contestants("AES-128-GCM", packets, rounds, cipher="AES-128-GCM"),
        *channel_contestants("AES-256-GCM, epochs", packets, rounds, cipher="AES-256-GCM", epoch=True),
        *channel_contestants("CHACHA20-POLY1305", packets, rounds, cipher="CHACHA20-POLY1305"),
        *channel_contestants("AES-256-CBC, SHA256", packets, rounds, cipher="AES-256-CBC"),
        *channel_contestants(
            "AES-256-GCM, comp-lzo no", packets, rounds, cipher="AES-256-GCM", compression="comp-lzo-no"
        ),
        *channel_contestants("AES-256-GCM, stub", packets, rounds, cipher="AES-256-GCM", compression="stub"),
        *channel_contestants("AES-256-GCM, fragment (whole)", packets, rounds, cipher="AES-256-GCM", fragment=9000),
        *replay_contestants(packets, rounds),
        *alternatives(packets),
    ]
    times: dict[str, list[float]] = {name: [] for name, _ in contestants}
    ratios: dict[str, list[float]] = {name: [] for name, _ in contestants}
    clock = time.perf_counter
    for _ in range(rounds):
        for name, work in contestants:
            start = clock()
            calibrate()
            middle = clock()
            work()
            end = clock()
            times[name].append((end - middle) / BURST)
            ratios[name].append((end - middle) / BURST / ((middle - start) / STEPS))
    print(f"{arguments.size}-byte packets, bursts of {BURST}, {rounds} rounds; us a packet")
    print(f"{'':50}{'best':>8}{'median':>8}{'steps':>8}")
    for name, _ in contestants:
        best, median = min(times[name]) * 1e6, statistics.median(times[name]) * 1e6
        print(f"{name:50}{best:8.2f}{median:8.2f}{statistics.median(ratios[name]):8.1f}")


if __name__ == "__main__":
    main()
