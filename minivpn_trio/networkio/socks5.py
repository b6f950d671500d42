"""SOCKS 5 for datagrams, without I/O: UDP ASSOCIATE and the header that each datagram gets.

python-socks, which does CONNECT, knows no UDP. Sources: RFC 1928 (the
protocol), RFC 1929 (user name and password).
"""

from __future__ import annotations

import ipaddress

from ..config.credentials import Credentials
from ..errors import DropReason, ProtocolError

__all__ = ["AssociateRefused", "UDPAssociate", "datagram_header", "strip_header_untrusted"]

VERSION = 5
UDP_ASSOCIATE = 3
NO_AUTHENTICATION, USERNAME_PASSWORD = 0, 2
IPV4, DOMAIN, IPV6 = 1, 3, 4

#: RFC 1928, section 6.
REPLIES = {
    1: "general failure", 2: "not allowed by its rules", 3: "network unreachable", 4: "host unreachable",
    5: "connection refused", 6: "TTL expired", 7: "it does not do UDP", 8: "address type not supported",
}  # fmt: skip


class AssociateRefused(Exception):
    """The proxy said no. ``credentials`` says whether to ours."""

    def __init__(self, reason: str, *, credentials: bool = False) -> None:
        super().__init__(reason)
        self.credentials = credentials


class UDPAssociate:
    """The dialogue by which a proxy lends us a UDP port.

    Send ``take_output()``, feed what arrives, until ``relay`` is set: the
    address and port that datagrams go to. ``wanted`` says how many bytes may
    be read next, so nothing behind the dialogue is swallowed.
    """

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials
        methods = bytes([NO_AUTHENTICATION] if credentials is None else [NO_AUTHENTICATION, USERNAME_PASSWORD])
        self._output = bytes([VERSION, len(methods)]) + methods
        self._step = self._method_untrusted
        self._buffer = b""
        self._size = 2
        self.relay: tuple[str, int] | None = None

    @property
    def wanted(self) -> int:
        """Bytes that are missing of the next message; 0 when done."""
        return 0 if self.relay is not None else self._size - len(self._buffer)

    def take_output(self) -> bytes:
        """What to send now; may be empty."""
        output, self._output = self._output, b""
        return output

    def handle_data_untrusted(self, data: bytes) -> None:
        """At most ``wanted`` bytes. Raises ProtocolError, AssociateRefused."""
        self._buffer += data
        if len(self._buffer) >= self._size:
            self._step()

    def _next(self, step: object, size: int) -> None:
        self._step = step  # type: ignore[assignment]
        self._buffer, self._size = b"", size

    def _method_untrusted(self) -> None:
        version, method = self._buffer
        if version != VERSION:
            raise ProtocolError(DropReason.MALFORMED, "what answers there does not speak SOCKS 5")
        if method == USERNAME_PASSWORD and self._credentials is not None:
            name, password = self._credentials.username.encode(), self._credentials.password.encode()
            self._output = bytes([1, len(name)]) + name + bytes([len(password)]) + password
            self._next(self._login_untrusted, 2)
        elif method == NO_AUTHENTICATION:
            self._ask()
        else:
            raise AssociateRefused("it asks for a way to log in that we have not", credentials=True)

    def _login_untrusted(self) -> None:
        if self._buffer[1] != 0:
            raise AssociateRefused("it refused the user name and the password", credentials=True)
        self._ask()

    def _ask(self) -> None:
        # Our own address is not known to us as the proxy sees it: all zero, as RFC 1928 suggests.
        self._output = bytes([VERSION, UDP_ASSOCIATE, 0, IPV4]) + bytes(6)
        self._next(self._reply_untrusted, 5)

    def _reply_untrusted(self) -> None:
        version, reply, _, kind, first = self._buffer[:5]
        if version != VERSION:
            raise ProtocolError(DropReason.MALFORMED, "what answers there does not speak SOCKS 5")
        if reply != 0:
            raise AssociateRefused(REPLIES.get(reply, f"error {reply}"))
        size = {IPV4: 10, IPV6: 22, DOMAIN: 7 + first}.get(kind)
        if size is None or kind == DOMAIN:
            raise ProtocolError(DropReason.BAD_ADDRESS, "it lends a port of no IP address")
        if len(self._buffer) < size:
            self._size = size
            return
        address = ipaddress.ip_address(self._buffer[4 : size - 2])
        self.relay = (str(address), int.from_bytes(self._buffer[size - 2 : size], "big"))


def datagram_header(host: str, port: int) -> bytes:
    """What stands before each datagram to ``host``, an address or a name that the proxy resolves.

    10, 22, or 7 bytes and the name. Raises UnicodeError for what can be no name.
    """
    end = port.to_bytes(2, "big")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii" if host.isascii() else "idna")
        if not 0 < len(name) <= 255:
            raise UnicodeError("a host name has 1 to 255 characters") from None
        return bytes([0, 0, 0, DOMAIN, len(name)]) + name + end
    return bytes([0, 0, 0, IPV4 if address.version == 4 else IPV6]) + address.packed + end


def strip_header_untrusted(datagram: bytes) -> bytes:
    """The payload of a datagram from the relay. Raises ProtocolError (MALFORMED, FRAGMENT)."""
    if len(datagram) < 5 or datagram[:2] != b"\0\0":
        raise ProtocolError(DropReason.MALFORMED, "no SOCKS header")
    if datagram[2] != 0:
        raise ProtocolError(DropReason.FRAGMENT, "SOCKS fragments are not supported")
    size = {IPV4: 10, IPV6: 22, DOMAIN: 7 + datagram[4]}.get(datagram[3], 0)
    if not size or len(datagram) <= size:
        raise ProtocolError(DropReason.MALFORMED, "no SOCKS header")
    return datagram[size:]
