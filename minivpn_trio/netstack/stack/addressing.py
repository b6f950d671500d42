"""Which addresses are ours, which of them talks to whom, and how much fits the way there."""

from __future__ import annotations

import errno

from ...errors import DropReason, ProtocolError
from ..packets import Address
from ..tcp.connection import TcpConnection
from ..tcp.network import os_error
from .lookup import LOOPBACK, is_host, is_loopback
from .state import StackState

__all__ = ["Addressing"]

_HEADERS4, _HEADERS6 = 40, 60


class Addressing(StackState):
    """The layer that knows the interface: addresses, MTU, MSS."""

    # --- addresses ---

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Ours, packed; without the loopback ones."""
        return self._addresses

    def is_own(self, address: Address) -> bool:
        """Whether packets to ``address`` stay here."""
        return address in self._addresses or is_loopback(address)

    def source_for(self, remote: Address) -> Address:
        """Our address for talking to ``remote``. Raises OSError(ENETUNREACH) if there is none of that family."""
        if remote in self._addresses:
            return remote
        if is_loopback(remote):
            return LOOPBACK[len(remote)]
        for address in self._addresses:
            if len(address) == len(remote):
                return address
        raise os_error(errno.ENETUNREACH)

    def _check_bindable(self, address: Address | None) -> None:
        if address is not None and any(address) and not self.is_own(address):
            raise os_error(errno.EADDRNOTAVAIL)

    def _check_addresses(self, src: Address, dst: Address) -> None:
        """Drop what is not to us, or cannot be from there."""
        if self._looping:
            return
        if dst not in self._addresses or not is_host(src) or src in self._addresses:
            raise ProtocolError(DropReason.BAD_ADDRESS)

    # --- sizes ---

    def mtu_to(self, remote: Address) -> int:
        """Path MTU to ``remote`` as far as it is known, bytes of IP packet. What TCP merely guesses does not count: it
        tries again, a datagram's sender would be told that it is too large."""
        return self._path_mtus.to(remote, self.mtu, self._now, guesses=False)

    def mss_to(self, remote: Address) -> int:
        """Largest TCP payload, before options, for ``remote``."""
        return self._mss_of(self._path_mtus.to(remote, self.mtu, self._now), remote)

    def _mss_of(self, mtu: int, remote: Address) -> int:
        mss = mtu - (_HEADERS4 if len(remote) == 4 else _HEADERS6)
        fixed = self._mss[len(remote)]
        return mss if fixed is None else min(mss, fixed)

    def link_mss(self, connection: TcpConnection) -> int:
        """What the link takes, whatever is known of the path."""
        return self._mss_of(self.mtu, connection.remote[0])

    def learn_mss(self, connection: TcpConnection, mss: int, *, sure: bool) -> None:
        """TCP found out itself what gets through to its destination."""
        remote = connection.remote[0]
        if mss >= self.link_mss(connection):
            self._path_mtus.forget(remote)
            return
        mtu = mss + (_HEADERS4 if len(remote) == 4 else _HEADERS6)
        self._path_mtus.find(remote, mtu, self._now, sure=sure)

    def path_doubt(self, connection: TcpConnection) -> int:
        """How many larger segments must still fail before what is known of the path is more than a guess."""
        return self._path_mtus.doubt(connection.remote[0])

    def refuse_probe(self, connection: TcpConnection) -> int | None:
        """A larger segment failed. As ``path_doubt``, after that; None: nothing is guessed of the path (any more)."""
        return self._path_mtus.refuse(connection.remote[0])

    def probe_at(self, connection: TcpConnection) -> float:
        """When a new connection should try whether the path takes more than is known of it."""
        return self._path_mtus.retry_at(connection.remote[0])

    def next_ident(self, remote: Address) -> int:
        """An identification for fragments to ``remote``, 32 bits."""
        return self._numbering.identification(remote)
