"""What the paths behind the tunnel take: the MTU of each destination, learnt from validated packet-too-big
messages (RFC 1191, RFC 8201) and from what got through where larger packets did not (RFC 4821).

What a router said, or lost probes have shown, is forgotten after ten minutes. What TCP merely guesses, because
timeouts stopped when it sent shorter segments, may have been an outage: that holds for a minute, in which every
new connection tries at once whether the path takes more.
"""

from __future__ import annotations

from math import inf

from .packets import Address

__all__ = ["LargeSends", "PathMtus"]

#: Nobody's word makes packets smaller than this: Linux's min_pmtu for IPv4, the protocol's minimum for IPv6.
_FLOOR4, _FLOOR6 = 552, 1280


def _floor(remote: Address) -> int:
    return _FLOOR4 if len(remote) == 4 else _FLOOR6


class PathMtus:
    """MTUs by destination, in bytes of IP packet. Bounded: the oldest entry goes first. Times are seconds."""

    def __init__(self, *, lifetime: float = 600.0, guess_lifetime: float = 60.0, most: int = 1024) -> None:
        self._lifetime = lifetime
        self._guess_lifetime = guess_lifetime
        self._most = most
        #: The MTU, when it is forgotten, and when somebody may try a larger packet.
        self._known: dict[Address, tuple[int, float, float]] = {}

    def learn(self, remote: Address, mtu: int, now: float) -> int:
        """A router says that the path to ``remote`` takes ``mtu`` (0: one older than RFC 1191). Believed within
        reason, and only if it is no more than what is known already (RFC 8201, 4). Returns what was understood."""
        mtu = max(mtu, _floor(remote))
        if mtu <= self.to(remote, mtu, now):
            self._note(remote, mtu, now + self._lifetime, now + self._lifetime)
        return mtu

    def find(self, remote: Address, mtu: int, now: float, *, sure: bool) -> None:
        """TCP saw packets of ``mtu`` get through to ``remote``, and larger ones fail; or it is not ``sure`` of the
        latter."""
        expires = now + (self._lifetime if sure else self._guess_lifetime)
        self._note(remote, max(mtu, _floor(remote)), expires, expires if sure else now)

    def _note(self, remote: Address, mtu: int, expires: float, retry_at: float) -> None:
        self._known.pop(remote, None)
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[remote] = (mtu, expires, retry_at)

    def forget(self, remote: Address) -> None:
        """Packets as large as the link takes got through to ``remote``."""
        self._known.pop(remote, None)

    def to(self, remote: Address, link: int, now: float) -> int:
        """The MTU to ``remote`` over a link of MTU ``link``."""
        known = self._known.get(remote)
        if known is None:
            return link
        mtu, expires, _ = known
        if expires <= now:
            del self._known[remote]
            return link
        return min(mtu, link)

    def retry_at(self, remote: Address) -> float:
        """When to try whether the path to ``remote`` takes more than is known; inf: nothing is known."""
        known = self._known.get(remote)
        return inf if known is None else known[2]

    def clear(self) -> None:
        """Forget everything: the path is another one."""
        self._known.clear()


class LargeSends:
    """Where a socket sent large packets, lately: an error that calls some other packet too large is not about this
    socket, whoever guessed its port (RFC 5927, 7; RFC 8899, 4.6.1). Bounded: the destination sent to longest ago goes
    first. Small packets, the rule with name servers, cost nothing: none is smaller than any MTU that is believed."""

    __slots__ = ("_most", "_sizes")

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._sizes: dict[Address, int] = {}

    def note(self, remote: Address, size: int) -> None:
        """An IP packet, or fragment, of ``size`` bytes goes to ``remote``."""
        if size <= _floor(remote):
            return
        sizes = self._sizes
        largest = sizes.pop(remote, 0)
        if len(sizes) >= self._most:
            del sizes[next(iter(sizes))]
        sizes[remote] = max(size, largest)

    def explain(self, remote: Address, mtu: int) -> bool:
        """Whether a router may have found something too large that went to ``remote``, where it takes ``mtu``."""
        return self._sizes.get(remote, 0) > max(mtu, _floor(remote))
