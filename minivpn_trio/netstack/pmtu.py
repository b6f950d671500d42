"""What the paths behind the tunnel take: the MTU of each destination, learnt from validated packet-too-big
messages (RFC 1191, RFC 8201) and from what got through where larger packets did not (RFC 4821), forgotten
after ten minutes.
"""

from __future__ import annotations

from .packets import Address

__all__ = ["PathMtus"]

#: Nobody's word makes packets smaller than this: Linux's min_pmtu for IPv4, the protocol's minimum for IPv6.
_FLOOR4, _FLOOR6 = 552, 1280


class PathMtus:
    """MTUs by destination, in bytes of IP packet. Bounded: the oldest entry goes first."""

    def __init__(self, *, lifetime: float = 600.0, most: int = 1024) -> None:
        self._lifetime = lifetime
        self._most = most
        self._known: dict[Address, tuple[int, float]] = {}

    def learn(self, remote: Address, mtu: int, now: float) -> int:
        """Believe that the path to ``remote`` takes ``mtu`` (0: a router older than RFC 1191), within
        reason. Returns what is believed."""
        mtu = max(mtu, _FLOOR4 if len(remote) == 4 else _FLOOR6)
        self._known.pop(remote, None)
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[remote] = (mtu, now + self._lifetime)
        return mtu

    def correct(self, remote: Address, mtu: int, link: int, now: float) -> None:
        """Packets of ``mtu`` were seen to get through to ``remote``, over a link of MTU ``link``."""
        if mtu >= link:
            self._known.pop(remote, None)
        else:
            self.learn(remote, mtu, now)

    def to(self, remote: Address, link: int, now: float) -> int:
        """The MTU to ``remote`` over a link of MTU ``link``."""
        known = self._known.get(remote)
        if known is None:
            return link
        mtu, expires = known
        if expires <= now:
            del self._known[remote]
            return link
        return min(mtu, link)

    def clear(self) -> None:
        """Forget everything: the path is another one."""
        self._known.clear()
