"""Socket addresses: those of both ends, and packed ones from what a caller gives, names included."""

from __future__ import annotations

import errno
import ipaddress
import operator
import os
import socket as stdlib
from typing import TYPE_CHECKING, Any

from ..tcp.network import os_error
from .options import V6ONLY, Options

if TYPE_CHECKING:
    from ..packets import Address

__all__ = ["Names"]


class Names(Options):
    """The layer that knows what (host, port) means."""

    def getsockname(self) -> Any:
        """Our end, (host, port) or with two zeros more for IPv6."""
        self._check_open()
        local: tuple[Address | None, int]
        if self._connection is not None:
            local = self._connection.local
        elif self._listener is not None:
            local = self._listener.local
        elif self._endpoint is not None:
            local = self._endpoint.local
        else:
            local = self._bound or (None, 0)
        return self._sockaddr(local)

    def getpeername(self) -> Any:
        """The other end. Raises OSError(ENOTCONN)."""
        self._check_open()
        if self._connection is not None:
            return self._sockaddr(self._connection.remote)
        if self._endpoint is not None and self._endpoint.remote is not None:
            return self._sockaddr(self._endpoint.remote)
        raise os_error(errno.ENOTCONN)

    def _sockaddr(self, end: tuple[Address | None, int]) -> Any:
        address, port = end
        if self._family == stdlib.AF_INET:
            return str(ipaddress.IPv4Address(address or 0)), port
        if address is not None and len(address) == 4:
            return f"::ffff:{ipaddress.IPv4Address(address)}", port, 0, 0
        return str(ipaddress.IPv6Address(address or 0)), port, 0, 0

    async def _numeric(self, address: Any, *, local: bool) -> tuple[Address | None, int]:
        """(packed host, port) of a socket address. A name is looked up inside the tunnel."""
        ipv4 = self._family == stdlib.AF_INET
        if not isinstance(address, tuple) or not 2 <= len(address) <= (2 if ipv4 else 4):
            raise ValueError(f"a tuple of (host, port{'' if ipv4 else '[, flowinfo[, scopeid]]'}) was expected")
        host, port = address[0], operator.index(address[1])
        if not 0 <= port <= 65535:
            raise OverflowError("port must be 0-65535.")
        if isinstance(host, bytes):
            host = host.decode("ascii")
        if host in ("", None):
            if local:
                return None, port
            raise os_error(errno.EADDRNOTAVAIL)
        try:
            ip = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            if self._resolve is None:
                raise stdlib.gaierror(stdlib.EAI_NONAME, os.strerror(errno.ENOENT)) from None
            found = await self._resolve(host, port, self._family, self._type)
            ip = ipaddress.ip_address(found[0][4][0])
        if ip.version != (4 if ipv4 else 6):
            raise os_error(errno.EAFNOSUPPORT)
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            if self._options.get(V6ONLY, 1):
                raise os_error(errno.ENETUNREACH)
            ip = ip.ipv4_mapped
        if local and ip.is_unspecified:
            return None, port
        return ip.packed, port

    def _any(self, address: Address | None) -> Address | None:
        """``address``, or what stands for all of ours: zeros of our family, None where IPv6 takes IPv4 along."""
        if address is not None:
            return address
        if self._family == stdlib.AF_INET:
            return bytes(4)
        return bytes(16) if self._options.get(V6ONLY, 1) else None
