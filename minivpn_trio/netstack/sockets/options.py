"""Socket options: which there are, what they are before anybody sets them, and what they do."""

from __future__ import annotations

import contextlib
import errno
import socket as stdlib
import struct
import sys
from typing import TYPE_CHECKING, Any

import trio

from ..tcp.congestion import ALGORITHMS
from ..tcp.connection import TcpConnection
from ..tcp.info import tcp_info
from ..tcp.network import os_error
from ..udp import UdpEndpoint
from .state import SocketState

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["V6ONLY", "Options"]

_LEVEL_TCP = stdlib.IPPROTO_TCP

V6ONLY = (stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY)
_KEEPALIVE = (stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE)
_KEEPIDLE = (_LEVEL_TCP, getattr(stdlib, "TCP_KEEPIDLE", 4))
_KEEPALIVE_PACE = (getattr(stdlib, "TCP_KEEPINTVL", 5), getattr(stdlib, "TCP_KEEPCNT", 6))
#: In milliseconds; 0: none.
_USER_TIMEOUT = (_LEVEL_TCP, getattr(stdlib, "TCP_USER_TIMEOUT", 18))
_NODELAY = (_LEVEL_TCP, stdlib.TCP_NODELAY)
_RCVBUF, _MAX_RCVBUF = (stdlib.SOL_SOCKET, stdlib.SO_RCVBUF), 8 << 20
_MAXSEG = (_LEVEL_TCP, stdlib.TCP_MAXSEG)
#: A name in ``ALGORITHMS``, as bytes; as much of it as Linux returns (TCP_CA_NAME_MAX).
_CONGESTION, _CONGESTION_SIZE = (_LEVEL_TCP, getattr(stdlib, "TCP_CONGESTION", 13)), 16
_INFO = (_LEVEL_TCP, getattr(stdlib, "TCP_INFO", 11))
#: IP_MTU and IPV6_MTU: what is known of the path to where the socket is connected. Not in every Python's socket module.
_MTU = ((stdlib.IPPROTO_IP, 14), (stdlib.IPPROTO_IPV6, 24))
#: IP_MTU_DISCOVER and IPV6_MTU_DISCOVER, and the two values of them that forbid fragments: DO and PROBE.
_MTU_DISCOVER = ((stdlib.IPPROTO_IP, 10), (stdlib.IPPROTO_IPV6, 23))
_NO_FRAGMENTS = (2, 3)
#: What Linux takes, and EINVAL else (MAX_TCP_KEEPIDLE and its like in net/tcp.h).
_RANGES = {
    _KEEPIDLE: (1, 32767),
    (_LEVEL_TCP, _KEEPALIVE_PACE[0]): (1, 32767),
    (_LEVEL_TCP, _KEEPALIVE_PACE[1]): (1, 127),
    _USER_TIMEOUT: (0, 0x7FFFFFFF),
}
#: Seconds, as Linux has it (tcp(7)).
_DEFAULT_KEEPIDLE = 7200

#: Options that are accepted and remembered, with their values before anybody set them. Most have no effect.
#: TCP_NODELAY is on unless it is turned off.
_DEFAULTS: dict[tuple[int, int], int] = {
    (stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR): 0,
    (stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE): 0,
    (stdlib.SOL_SOCKET, stdlib.SO_BROADCAST): 0,
    (stdlib.SOL_SOCKET, stdlib.SO_SNDBUF): 212_992,
    (stdlib.SOL_SOCKET, stdlib.SO_RCVBUF): 212_992,
    _NODELAY: 1,
    (stdlib.IPPROTO_IP, stdlib.IP_TTL): 64,
    (stdlib.IPPROTO_IP, stdlib.IP_TOS): 0,
    V6ONLY: 1,
    (stdlib.IPPROTO_IPV6, stdlib.IPV6_UNICAST_HOPS): 64,
}
for _name in ("TCP_NOTSENT_LOWAT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT", "TCP_QUICKACK"):
    if hasattr(stdlib, _name):
        _DEFAULTS[_LEVEL_TCP, getattr(stdlib, _name)] = 0
if hasattr(stdlib, "SO_REUSEPORT"):
    _DEFAULTS[stdlib.SOL_SOCKET, stdlib.SO_REUSEPORT] = 0
_DEFAULTS.update(dict.fromkeys(_MTU_DISCOVER, 1))
# Not in every Python's socket module; asyncio, trio and anyio use the number too.
_DEFAULTS[stdlib.IPPROTO_IP, 24] = 0  # IP_BIND_ADDRESS_NO_PORT


class Options(SocketState):
    """The layer that knows options."""

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> Any:
        """As ``socket.socket.getsockopt``; OSError(ENOPROTOOPT) for options that are not known.

        TCP_INFO is Linux's structure as far as its ``tcpi_total_retrans``.
        """
        self._check_open()
        key = (level, optname)
        if key == (stdlib.SOL_SOCKET, stdlib.SO_ERROR):
            value = self._take_error()
        elif key == (stdlib.SOL_SOCKET, stdlib.SO_TYPE):
            value = int(self._type)
        elif key == (stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN):
            value = int(self._listener is not None)
        elif key == (stdlib.SOL_SOCKET, getattr(stdlib, "SO_DOMAIN", -1)):
            value = int(self._family)
        elif key == (stdlib.SOL_SOCKET, getattr(stdlib, "SO_PROTOCOL", -1)):
            value = self._protocol
        elif key in _MTU:
            value = self._path_mtu()
        elif key == _MAXSEG and self._type == stdlib.SOCK_STREAM:
            value = 536 if self._connection is None else self._pump.stack.mss_to(self._connection.remote[0])
        elif key == _CONGESTION and self._type == stdlib.SOCK_STREAM:
            name = self._congestion_in_force.encode().ljust(_CONGESTION_SIZE, b"\0")
            return int.from_bytes(name[:4], sys.byteorder) if buflen is None else name[:buflen]
        elif key == _INFO and self._type == stdlib.SOCK_STREAM:
            if buflen is None:
                raise os_error(errno.EINVAL)
            connection = self._connected()
            return tcp_info(connection, self._pump.stack.mtu_to(connection.remote[0]))[:buflen]
        elif key == (stdlib.SOL_SOCKET, stdlib.SO_LINGER):
            return struct.pack("ii", int(self._linger_zero), 0)
        elif key in _DEFAULTS:
            value = self._options.get(key, _DEFAULTS[key])
        else:
            raise os_error(errno.ENOPROTOOPT)
        return value if buflen is None else struct.pack("i", value)[:buflen]

    def setsockopt(self, level: int, optname: int, value: int | Buffer | None, optlen: int | None = None) -> None:
        """As ``socket.socket.setsockopt``; OSError(ENOPROTOOPT) for options that are not known.

        SO_LINGER with a time of 0 makes ``close`` reset the connection; SO_KEEPALIVE with TCP_KEEPIDLE,
        TCP_KEEPINTVL and TCP_KEEPCNT, TCP_USER_TIMEOUT (EINVAL outside of Linux's ranges), TCP_NODELAY (on by default)
        and TCP_CONGESTION (ENOENT for an algorithm that there is not; "bbr" needs a peer with SACK, and is "cubic"
        otherwise) are obeyed, and for datagrams the time to
        live, SO_RCVBUF and IP_MTU_DISCOVER. The rest is remembered.
        """
        self._check_open()
        if value is None:
            raise TypeError("an option without a value is not supported")
        if (level, optname) == (stdlib.SOL_SOCKET, stdlib.SO_LINGER):
            if isinstance(value, int):
                raise os_error(errno.EINVAL)
            on, seconds = struct.unpack("ii", value)
            self._linger_zero = bool(on) and seconds == 0
            return
        if (level, optname) == _CONGESTION and self._type == stdlib.SOCK_STREAM:
            if isinstance(value, int):
                raise os_error(errno.EINVAL)
            name = bytes(value)[: _CONGESTION_SIZE - 1].partition(b"\0")[0].decode("ascii", "replace")
            if name not in ALGORITHMS:
                raise os_error(errno.ENOENT)
            self._congestion = name
            if self._connection is not None:
                self._connection.set_congestion(name)
            return
        if (level, optname) not in _DEFAULTS:
            raise os_error(errno.ENOPROTOOPT)
        number = int(value) if isinstance(value, int) else int.from_bytes(bytes(value)[:4], sys.byteorder, signed=True)
        least, most = _RANGES.get((level, optname), (number, number))
        if not least <= number <= most:
            raise os_error(errno.EINVAL)
        self._options[level, optname] = number
        self._apply_keepalive()
        self._apply_user_timeout()
        self._apply_nodelay()
        self._apply_to_endpoint()

    # --- what they do ---

    def _apply_keepalive(self) -> None:
        if self._connection is None or not self._options.get(_KEEPALIVE):
            if self._connection is not None and _KEEPALIVE in self._options:
                self._pump.run(self._connection.set_keepalive, None, trio.current_time())
            return
        idle = self._options.get(_KEEPIDLE) or _DEFAULT_KEEPIDLE
        interval, probes = (self._options.get((_LEVEL_TCP, option)) for option in _KEEPALIVE_PACE)
        self._pump.run(
            self._connection.set_keepalive, float(idle), trio.current_time(), interval or None, probes or None
        )

    def _apply_user_timeout(self) -> None:
        if self._connection is not None and _USER_TIMEOUT in self._options:
            seconds = self._options[_USER_TIMEOUT] / 1000 or None
            self._pump.run(self._connection.set_user_timeout, seconds, trio.current_time())

    def _apply_nodelay(self) -> None:
        if self._connection is not None and _NODELAY in self._options:
            self._pump.run(self._connection.set_nodelay, bool(self._options[_NODELAY]), trio.current_time())

    def _apply_to_endpoint(self) -> None:
        if self._endpoint is None:
            return
        self._endpoint.ttl = self._ttl()
        if not isinstance(self._endpoint, UdpEndpoint):
            return
        discover = _MTU_DISCOVER[self._family != stdlib.AF_INET]
        self._endpoint.dont_fragment = self._options.get(discover) in _NO_FRAGMENTS
        if _RCVBUF in self._options:
            # Twice what is asked for, as Linux does (socket(7)), within reason.
            self._endpoint.max_queued_bytes = max(2048, min(2 * self._options[_RCVBUF], _MAX_RCVBUF))

    # --- what they say ---

    @property
    def _congestion_in_force(self) -> str:
        if self._connection is not None:
            return self._connection.congestion_name
        return self._congestion or self._pump.stack.settings.congestion

    def _ttl(self) -> int:
        if self._family == stdlib.AF_INET:
            ttl = self._options.get((stdlib.IPPROTO_IP, stdlib.IP_TTL), 64)
        else:
            ttl = self._options.get((stdlib.IPPROTO_IPV6, stdlib.IPV6_UNICAST_HOPS), 64)
        return ttl if 0 < ttl < 256 else 64

    def _path_mtu(self) -> int:
        """Raises OSError(ENOTCONN) where there is no path."""
        remote = self._connection.remote if self._connection is not None else None
        if self._endpoint is not None:
            remote = self._endpoint.remote
        if remote is None:
            raise os_error(errno.ENOTCONN)
        return self._pump.stack.mtu_to(remote[0])

    def _take_error(self) -> int:
        source = self._connection or self._endpoint
        if source is None or source.error is None:
            return 0
        number = source.error.errno or 0
        if not isinstance(source, TcpConnection):
            with contextlib.suppress(OSError):
                source.raise_pending()
        return number
