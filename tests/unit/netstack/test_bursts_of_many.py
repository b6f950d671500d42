"""A burst with packets of several connections, verified as a whole."""

from __future__ import annotations

from random import Random

import pytest

from minivpn_trio.errors import DropReason
from minivpn_trio.netstack.stack import Stack
from minivpn_trio.netstack.stack import input as stack_input
from minivpn_trio.netstack.tcp.connection import TcpConnection

NEAR, FAR = b"\x0a\x08\x00\x02", b"\x0a\x08\x00\x01"
NEAR6, FAR6 = b"\xfd" + bytes(14) + b"\x02", b"\xfd" + bytes(14) + b"\x01"
FLOWS = 6


def exchange(near: Stack, far: Stack, now: float) -> None:
    for _ in range(4):
        near.handle_packets(near_in := far.take_output(now=now), now)
        far.handle_packets(far_in := near.take_output(now=now), now)
        if not (near_in or far_in):
            return


def connected() -> tuple[Stack, Stack, list[TcpConnection], dict[int, TcpConnection]]:
    """Two stacks, and the connections between them: those of the one, those of the other by the port of the first."""
    near = Stack(addresses=[NEAR, NEAR6], mtu=1400, rng=Random(1).randbytes, now=0.0)
    far = Stack(addresses=[FAR, FAR6], mtu=1400, rng=Random(2).randbytes, now=0.0)
    listener = far.listen_tcp((None, 80), 0.0, 16)
    mine = [near.connect_tcp((FAR6 if number % 2 else FAR, 80), 0.0) for number in range(FLOWS)]
    exchange(near, far, 0.1)
    theirs = {connection.remote[1]: connection for _ in range(FLOWS) if (connection := listener.accept())}
    return near, far, mine, theirs


def test_a_defect_in_verifying_all_leaves_it_to_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a library that adds up raises: the burst is taken, the defect counted, and nothing leaves the stack."""

    def failing(packets: list[bytes]) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(stack_input, "all_intact", failing)
    monkeypatch.setattr(Stack, "contains_faults", True)
    near, far, mine, theirs = connected()
    for number, connection in enumerate(mine):
        connection.write(bytes([number + 1]) * 100, 0.2)
    before = far.stats().drops.get(DropReason.FAULT, 0)
    far.handle_packets(near.take_output(now=0.2), 0.3)
    for number, connection in enumerate(mine):
        assert theirs[connection.local[1]].read(1000, 0.3) == bytes([number + 1]) * 100
    assert far.stats().drops == {DropReason.FAULT: before + 1}


@pytest.mark.parametrize("spoilt", range(FLOWS))
def test_of_a_burst_of_many_connections_only_what_is_damaged_is_lost(spoilt: int) -> None:
    near, far, mine, theirs = connected()
    for number, connection in enumerate(mine):
        connection.write(bytes([number + 1]) * 100, 0.2)
    burst = near.take_output(now=0.2)
    assert len(burst) == FLOWS
    which = next(index for index, packet in enumerate(burst) if packet[-1] == spoilt + 1)
    damaged = bytearray(burst[which])
    damaged[-50] ^= 1
    burst[which] = bytes(damaged)
    far.handle_packets(burst, 0.3)
    for number, connection in enumerate(mine):
        data = theirs[connection.local[1]].read(1000, 0.3)
        assert data == (b"" if number == spoilt else bytes([number + 1]) * 100)
    assert far.stats().drops == {DropReason.BAD_CHECKSUM: 1}
