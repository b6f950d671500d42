"""A long fat path, 200 ms and no loss, is filled: by what arrives in the second half of a transfer, not by its peak."""

from __future__ import annotations

import pytest
from tcp_world import Link, Transfer, World

from minivpn_trio.netstack.tcp.settings import TcpSettings

RATE, ROUND_TRIP = 100e6, 0.2
SIZE = 60_000_000


def second_half(congestion: str, way: str, queue: int) -> tuple[float, World]:
    """Mbit/s of payload while the second half of the bytes was read, and the world in which that was."""
    up, down = (Link(delay=ROUND_TRIP / 2, rate=RATE, queue=queue) for _ in range(2))
    sender, receiver = TcpSettings(congestion=congestion), TcpSettings()
    world = World(
        up=up, down=down, settings_a=sender if way == "up" else receiver, settings_b=receiver if way == "up" else sender
    )
    ours, theirs = world.connect()
    if way == "down":
        ours, theirs = theirs, ours
    transfer = Transfer(world, ours, theirs, bytes(SIZE), chunk=1 << 20)
    halfway = (0.0, 0)

    def pump() -> bool:
        nonlocal halfway
        transfer.pump()
        if not halfway[1] and len(transfer.received) >= SIZE // 2:
            # It may be more: what was behind a hole comes at once.
            halfway = world.now, len(transfer.received)
        return len(transfer.received) == SIZE

    world.run(pump)
    assert bytes(transfer.received) == bytes(SIZE)
    began, before = halfway
    assert before < SIZE * 2 // 3
    return (SIZE - before) * 8e-6 / (world.now - began), world


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("congestion", ["bbr", "cubic"])
def test_a_path_of_200_ms_is_filled(congestion: str, way: str) -> None:
    """Nine tenths of the rate, of which headers are 4 %, with a queue for less than half of a round trip."""
    speed, world = second_half(congestion, way, queue=1 << 20)
    assert speed >= 0.9 * RATE * 1e-6
    assert [stack.stats().tcp_timeouts for stack in (world.a, world.b)] == [0, 0]
