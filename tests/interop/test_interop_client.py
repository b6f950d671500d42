"""open_client: raw IP packets in bursts, without our own stack on top."""

from __future__ import annotations

import struct

import trio

from minivpn_trio import Client, open_client
from tests.interop.exchanges import EventLog
from tests.interop.lab.lab import TUN_IPV4


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def echo_request(source: bytes, destination: bytes, sequence: int, size: int) -> bytes:
    """An IPv4 packet with an ICMP echo request (RFC 792) of ``size`` payload bytes."""
    payload = bytes(n % 256 for n in range(size + size % 2))
    icmp = struct.pack(">BBHHH", 8, 0, 0, 0x1234, sequence) + payload
    icmp = icmp[:2] + struct.pack(">H", checksum(icmp)) + icmp[4:]
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(icmp), sequence, 0, 64, 1, 0, source, destination)
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + icmp


def echo_sequences(burst: list[bytes]) -> list[int]:
    """The sequence numbers of the echo replies among ``burst``."""
    return [
        struct.unpack(">H", packet[26:28])[0]
        for packet in burst
        if packet[0] == 0x45 and packet[9] == 1 and packet[20] == 0
    ]


async def ping_burst(client: Client, count: int, size: int) -> set[int]:
    """Send ``count`` echo requests in one burst; the sequence numbers that were answered."""
    source = client.tunnel_info.ipv4.ip.packed
    destination = bytes(map(int, TUN_IPV4.split(".")))
    await client.send([echo_request(source, destination, n, size) for n in range(count)])
    seen: set[int] = set()
    with trio.move_on_after(5):
        while len(seen) < count:
            seen |= set(echo_sequences(await client.receive()))
    return seen


async def test_a_burst_of_packets_is_answered(start_server) -> None:
    with trio.fail_after(20):
        async with open_client(start_server().profile_file()) as client:
            for size in (0, 56, 1000, 1472):
                assert await ping_burst(client, 32, size) == set(range(32)), size
            stats = client.stats()
    assert stats.data.packets_out == 4 * 32
    assert stats.netstack is None


async def test_two_clients_and_their_events(start_server) -> None:
    profile = start_server(transport="tcp").profile_file()
    logs = EventLog(), EventLog()
    with trio.fail_after(20):
        async with open_client(profile, on_event=logs[0]) as one, open_client(profile, on_event=logs[1]) as two:
            assert await ping_burst(one, 4, 100) == await ping_burst(two, 4, 100) == {0, 1, 2, 3}
    assert [type(event).__name__ for event in logs[0].events] == [
        "DialStarted", "DialDone", "ResetSent", "ResetDone", "TLSHandshakeStarted", "TLSHandshakeDone",
        "KeysGenerated", "Ready", "Closed",
    ]  # fmt: skip
