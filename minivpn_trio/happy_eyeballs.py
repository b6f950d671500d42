"""Happy Eyeballs: a connection to a host of several addresses, whichever of them answers first (RFC 8305).

The addresses are tried one after the other, families taking turns, each while those before it are still being tried:
the next one when the one before failed, or was silent for a quarter of a second. Nor does anybody wait for a name
server that is late with the addresses of one family: those of the other are tried meanwhile, and the late ones join
in. Who looks names up and what a socket is, the caller says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import trio

from .netstack.resolver import STRAGGLER_TIMEOUT, AddressInfo
from .netstack.sockets import TunSocket

__all__ = ["connect_first", "taking_turns"]

#: RFC 8305, 5 and 3, seconds: until the next address is tried, and for AAAA to come after A.
CONNECTION_ATTEMPT_DELAY = 0.25
RESOLUTION_DELAY = 0.05

#: Looks the name up; the argument is how many seconds it waits for the other family once one is there.
Find = Callable[[float], Awaitable[list[AddressInfo]]]
#: Opens a socket, which is not connected, of a family, type and protocol.
OpenSocket = Callable[[int, int, int], TunSocket]


async def connect_first(find: Find, open_socket: OpenSocket, *, both_families: Callable[[], bool]) -> TunSocket:
    """The socket that connected first, the others closed.

    ``both_families`` is asked after the first look-up: whether addresses of both could be reached.
    Checkpoints; a cancelled call leaves nothing behind. Raises OSError: that of the last address tried, the earlier
    ones as notes; and what ``find`` raises.
    """
    failures: list[OSError] = []

    async def find_late() -> list[AddressInfo]:
        try:
            return await find(STRAGGLER_TIMEOUT)
        except OSError:
            return []

    found = await find(RESOLUTION_DELAY)
    complete = not both_families() or len({family for family, *_ in found}) == 2
    if complete and len(found) == 1:
        # Nothing to race with, and no tasks for it.
        return await _connect_only(found[0], open_socket)
    socket = await _race(found, open_socket, failures, None if complete else find_late)
    if socket is not None:
        return socket
    for earlier in failures[:-1]:
        failures[-1].add_note(f"tried before: {earlier}")
    raise failures[-1]


async def _connect_only(target: AddressInfo, open_socket: OpenSocket) -> TunSocket:
    """A socket that is connected to ``target``. Raises OSError."""
    family, kind, proto, _, address = target
    socket = open_socket(family, kind, proto)
    try:
        await socket.connect(address)
    except BaseException:
        socket.close()
        raise
    return socket


async def _race(
    found: list[AddressInfo],
    open_socket: OpenSocket,
    failures: list[OSError],
    find_late: Callable[[], Awaitable[list[AddressInfo]]] | None,
) -> TunSocket | None:
    """The socket that connected first, the others closed; None, with why in ``failures``, if none did.

    ``find_late`` finds what else there is, while those ``found`` are tried; its new addresses are next (RFC
    8305, 3).
    """
    targets = deque(taking_turns(found))
    complete = find_late is None
    more = trio.Event()
    sockets: list[TunSocket] = []
    winner: TunSocket | None = None

    async def look_again(find: Callable[[], Awaitable[list[AddressInfo]]]) -> None:
        nonlocal complete
        late = [each for each in await find() if each not in found]
        if late:
            left = taking_turns([*late, *targets])
            targets.clear()
            targets.extend(left)
        complete = True
        more.set()

    async def attempt(target: AddressInfo, failed: trio.Event, scope: trio.CancelScope) -> None:
        nonlocal winner
        family, kind, proto, _, address = target
        socket = open_socket(family, kind, proto)
        sockets.append(socket)
        try:
            await socket.connect(address)
        except OSError as exc:
            failures.append(exc)
            failed.set()
        else:
            winner = winner or socket
            scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            if find_late is not None:
                nursery.start_soon(look_again, find_late)
            while targets or not complete:
                if not targets:
                    await more.wait()
                    continue
                failed = trio.Event()
                nursery.start_soon(attempt, targets.popleft(), failed, nursery.cancel_scope)
                with trio.move_on_after(CONNECTION_ATTEMPT_DELAY):
                    await failed.wait()
    except BaseException:
        winner = None
        raise
    finally:
        for socket in sockets:
            if socket is not winner:
                socket.close()
    return winner


def taking_turns(found: list[AddressInfo]) -> list[AddressInfo]:
    """``found``, at least one, with the families alternating, beginning with the first one's (RFC 8305, 4)."""
    first = [each for each in found if each[0] == found[0][0]]
    second = [each for each in found if each[0] != found[0][0]]
    turns = [each for pair in zip(first, second, strict=False) for each in pair]
    return turns + first[len(second) :] + second[len(first) :]
