"""The words that a managed pluggable transport and its parent exchange, without I/O.

Source: Tor's Pluggable Transport Specification (pt-spec, version 1 of the
configuration protocol), sections 3.2 and 3.3: environment in, lines on
standard output back; and 3.5: how the arguments of one connection are hidden
in a SOCKS 5 user name and password.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import DropReason, ProtocolError

__all__ = ["Handshake", "Refused", "environment", "socks_arguments"]

#: Bytes of one line, and of all of them; a transport says four short ones.
MAX_LINE = 2048
MAX_OUTPUT = 16 * 1024


class Refused(Exception):
    """The transport said that it cannot work. The text is a fixed one."""


def environment(transport: str, state_folder: str) -> dict[str, str]:
    """The variables that tell a client transport what to do. It ends when its standard input does."""
    return {
        "TOR_PT_MANAGED_TRANSPORT_VER": "1",
        "TOR_PT_CLIENT_TRANSPORTS": transport,
        "TOR_PT_STATE_LOCATION": state_folder,
        "TOR_PT_EXIT_ON_STDIN_CLOSE": "1",
    }


class Handshake:
    """Reads what a client transport says until it listens; then ``address`` is set."""

    def __init__(self, transport: str) -> None:
        self._transport = transport
        self._rest = b""
        self._seen = 0
        self._found: tuple[str, int] | None = None
        self.address: tuple[str, int] | None = None

    def handle_output_untrusted(self, data: bytes) -> None:
        """The next bytes of its standard output. Raises ProtocolError, Refused."""
        self._seen += len(data)
        self._rest += data
        while self.address is None:
            line, newline, rest = self._rest.partition(b"\n")
            if len(line) > MAX_LINE or self._seen > MAX_OUTPUT:
                raise ProtocolError(DropReason.TOO_LONG, "it says too much")
            if not newline:
                return
            self._rest = rest
            self._line_untrusted(line.decode("ascii", "replace").rstrip("\r").split(" "))

    def _line_untrusted(self, words: list[str]) -> None:
        match words:
            case ["VERSION", version]:
                if version != "1":
                    raise Refused("it speaks another version of the protocol")
            case ["VERSION-ERROR", *_]:
                raise Refused("it speaks another version of the protocol")
            case ["ENV-ERROR", *_]:
                raise Refused("it does not like its environment")
            case ["PROXY-ERROR" | "PROXY", *_]:
                raise Refused("it speaks of a proxy that nobody asked for")
            case ["CMETHOD-ERROR", *_]:
                raise Refused(f"it cannot do {self._transport}")
            case ["CMETHOD", name, "socks5", place, *_] if name == self._transport:
                self._found = _loopback_untrusted(place)
            case ["CMETHODS", "DONE"]:
                if self._found is None:
                    raise Refused(f"it cannot do {self._transport}")
                self.address = self._found
            case _:
                pass  # LOG, STATUS, and whatever later versions say


def _loopback_untrusted(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    if host not in ("127.0.0.1", "[::1]") or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ProtocolError(DropReason.BAD_ADDRESS, "it listens at no address of this machine")
    return host.strip("[]"), int(port)


def socks_arguments(arguments: Mapping[str, str]) -> tuple[str, str]:
    """User name and password that carry ``arguments`` to the transport.

    The text is cut after 255 bytes; a password that would be empty is a NUL. Raises ValueError
    if there is more than 510 bytes, or anything but ASCII.
    """
    text = ";".join(f"{_escaped(key)}={_escaped(value)}" for key, value in arguments.items())
    if not text or len(text) > 510 or not text.isascii():
        raise ValueError("the arguments do not fit a user name and a password")
    return text[:255], text[255:] or "\0"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(";", "\\;").replace("=", "\\=")
