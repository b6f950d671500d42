"""Which server next, which of its addresses first, and after how long.

A round begins with the server and the address that carried the tunnel, where the own address inside it is likely to
stay the same; or with the one after it, if the server sent us away. Servers are known by their position: profiles name
one several times, to be tried more often than others.
"""

from __future__ import annotations

import random
from typing import Any, Protocol, TypeVar

from .config.model import Remote, TunnelConfig

__all__ = ["SHORTEST_PAUSE", "Rotation"]

#: Rounds after which the delay between attempts doubles each time (openvpn: connect-retry).
ROUNDS_BEFORE_BACKOFF = 5
#: Seconds between two rounds at least, whatever the profile says: a port that refuses does so in no time.
SHORTEST_PAUSE = 1.0


class _Addressed(Protocol):
    @property
    def address(self) -> Any: ...


E = TypeVar("E", bound=_Addressed)


class Rotation:
    """The order of servers and addresses, round by round. ``chance`` shuffles for ``remote-random``."""

    def __init__(self, config: TunnelConfig, chance: random.Random) -> None:
        self._config = config
        self._chance = chance
        self._position: int | None = None
        self._after = False
        self._address: Any = None
        self._other_address = False

    def begin_at(self, position: int, address: Any, advance: str = "no") -> None:
        """Let rounds begin with the server at ``position`` of the profile; ``advance`` as in AUTH_FAILED,TEMP."""
        self._position, self._after = position, advance == "remote"
        self._address, self._other_address = address, advance != "no"

    def round(self) -> list[tuple[int, Remote]]:
        """All servers with their positions, in the order in which the next round tries them."""
        order = list(range(len(self._config.remotes)))
        if self._config.remote_random:
            self._chance.shuffle(order)
        if self._position is not None:
            start = order.index(self._position) + self._after
            order = order[start:] + order[:start]
        return [(position, self._config.remotes[position]) for position in order]

    def addresses(self, position: int, found: list[E]) -> list[E]:
        """``found`` of the server at ``position``, the one to begin with first."""
        if position != self._position:
            return found
        return sorted(found, key=lambda each: (each.address == self._address) is self._other_address)

    def delay(self, attempt: int) -> float:
        """Seconds before attempt number ``attempt`` (from 1): constant for a few rounds, then doubling."""
        retry = max(self._config.connect_retry, SHORTEST_PAUSE)
        doublings = max(0, attempt - ROUNDS_BEFORE_BACKOFF)
        return min(retry * 2.0 ** min(doublings, 32), max(retry, self._config.connect_retry_max_delay))
