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


#: So many full segments must fail, while smaller ones get through, until size is held to be the reason and not an
#: outage or plain loss (RFC 8899, 5.1.2, MAX_PROBES).
PROOF = 3


class PathMtus:
    """MTUs by destination, in bytes of IP packet. Bounded: the oldest entry goes first. Times are seconds."""

    def __init__(self, *, lifetime: float = 600.0, guess_lifetime: float = 60.0, most: int = 1024) -> None:
        self._lifetime = lifetime
        self._guess_lifetime = guess_lifetime
        self._most = most
        #: The MTU; when it is forgotten; when somebody may try a larger packet; how many of these must fail until it is
        #: more than a guess, 0: it is.
        self._known: dict[Address, tuple[int, float, float, int]] = {}

    def learn(self, remote: Address, mtu: int, now: float) -> int:
        """A router says that the path to ``remote`` takes ``mtu`` (0: one older than RFC 1191). Believed within
        reason, and only if it is no more than what is known already (RFC 8201, 4). Returns what was understood."""
        mtu = max(mtu, _floor(remote))
        if mtu <= self.to(remote, mtu, now, guesses=False):
            self._note(remote, mtu, now + self._lifetime)
        return mtu

    def find(self, remote: Address, mtu: int, now: float, *, sure: bool) -> None:
        """TCP saw packets of ``mtu`` get through to ``remote``, and larger ones fail; or it is not ``sure`` of the
        latter."""
        mtu = max(mtu, _floor(remote))
        if sure:
            self._note(remote, mtu, now + self._lifetime)
        else:
            known = self._known.get(remote)
            doubt = known[3] if known is not None and known[1] > now else 0
            self._note(remote, mtu, now + self._guess_lifetime, now, doubt or PROOF)

    def doubt(self, remote: Address) -> int:
        """How many larger packets must still fail until what is known of the path to ``remote`` is more than a guess;
        0: it is, or nothing is known."""
        known = self._known.get(remote)
        return 0 if known is None else known[3]

    def refuse(self, remote: Address) -> int | None:
        """A larger packet failed; whoever tried it, it counts. As ``doubt``, after that; None: there is no guess."""
        known = self._known.get(remote)
        if known is None or not known[3]:
            return None
        mtu, expires, retry_at, doubt = known
        self._known[remote] = (mtu, expires, retry_at, doubt - 1)
        return doubt - 1

    def _note(self, remote: Address, mtu: int, expires: float, retry_at: float = inf, doubt: int = 0) -> None:
        self._known.pop(remote, None)
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[remote] = (mtu, expires, min(expires, retry_at), doubt)

    def forget(self, remote: Address) -> None:
        """Packets as large as the link takes got through to ``remote``."""
        self._known.pop(remote, None)

    def to(self, remote: Address, link: int, now: float, *, guesses: bool = True) -> int:
        """The MTU to ``remote`` over a link of MTU ``link``, with ``guesses`` or without."""
        known = self._known.get(remote)
        if known is None:
            return link
        mtu, expires, _, doubt = known
        if expires <= now:
            del self._known[remote]
            return link
        return min(mtu, link) if guesses or not doubt else link

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
