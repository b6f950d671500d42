"""Keepalive: pings, which travel as data packets but are no IP packets.

A ping is 16 bytes that say "I am here" (reference: ping.c). It is one-way: the
receiver swallows it and never answers. Whoever has sent nothing for ``ping``
seconds sends one; whoever has heard nothing for ``ping_restart`` or
``ping_exit`` seconds gives the peer up. Only packets that authenticated and
were no replays count as heard, or an attacker could hide that the peer is gone.

``inactive`` looks at the IP packets instead: when too few bytes of them went
through, the tunnel is of no use any more and ends for good. Pings are none.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import TunnelClosed

__all__ = ["PING", "Keepalive"]

PING = bytes.fromhex("2a187bf3641eb4cb07ed2d0a981fc748")


@dataclass(slots=True)
class Keepalive:
    """The two silences. Times are seconds; an interval of 0 is off."""

    ping: float = 0.0
    ping_restart: float = 0.0
    ping_exit: float = 0.0
    #: Bytes of IP packets without which ``inactive`` seconds end the tunnel.
    inactive: float = 0.0
    inactive_bytes: int = 0
    #: Since when less than that came through, and how much did.
    idle_since: float | None = None
    moved: int = 0
    #: When something was last sent, and last heard; None: the tunnel is not up yet.
    last_sent: float | None = None
    last_heard: float | None = None

    def configure(self, *, ping: float, ping_restart: float, ping_exit: float, now: float) -> None:
        """Use these intervals. A key was installed, so the peer was heard on the control channel just now."""
        self.ping = ping
        self.ping_restart = ping_restart
        self.ping_exit = ping_exit
        self.last_heard = now
        if self.last_sent is None:
            self.last_sent = now

    def take_last_heard(self) -> float | None:
        """When something was last heard, and forget it: so that it shows whether something else is."""
        before, self.last_heard = self.last_heard, None
        return before

    def watch_use(self, *, inactive: float, inactive_bytes: int, now: float) -> None:
        """End an unused tunnel. A new key changes nothing about since when it is unused."""
        self.inactive = inactive
        self.inactive_bytes = inactive_bytes
        if self.idle_since is None:
            self.idle_since = now

    def count(self, size: int, now: float) -> None:
        """IP packets of ``size`` bytes in all went in or out (reference: forward.h, register_activity)."""
        self.moved += size
        if self.moved >= self.inactive_bytes:
            self.moved = 0
            self.idle_since = now

    def next_timeout(self) -> float | None:
        """When there is something to do if the silences last."""
        times = []
        if self.last_sent is not None and self.ping:
            times.append(self.last_sent + self.ping)
        if self.last_heard is not None:
            times.extend(self.last_heard + limit for limit in (self.ping_restart, self.ping_exit) if limit)
        if self.idle_since is not None and self.inactive:
            times.append(self.idle_since + self.inactive)
        return min(times, default=None)

    def ping_is_due(self, now: float) -> bool:
        """Whether nothing was sent for ``ping`` seconds."""
        return bool(self.ping) and self.last_sent is not None and now >= self.last_sent + self.ping

    def check_peer(self, now: float) -> None:
        """Raise TunnelClosed if the peer was silent, or the tunnel of no use, for too long."""
        if self.idle_since is not None and self.inactive and now >= self.idle_since + self.inactive:
            raise TunnelClosed(f"the tunnel was not used for {self.inactive:g} s (inactive)", restart=False)
        if self.last_heard is None:
            return
        if self.ping_exit and now >= self.last_heard + self.ping_exit:
            raise TunnelClosed(f"nothing heard of the peer for {self.ping_exit:g} s (ping-exit)")
        if self.ping_restart and now >= self.last_heard + self.ping_restart:
            raise TunnelClosed(f"nothing heard of the peer for {self.ping_restart:g} s (ping-restart)", restart=True)
