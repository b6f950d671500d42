"""The server's management interface, through which a test decides who may log in.

``ServerOptions(extra=MANAGED)`` opens it as a unix socket in the server's folder; nobody is let in until the
test says so. The commands are those of openvpn's doc/management-notes.txt.
"""

from __future__ import annotations

import base64
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from .namespaces import LabError

__all__ = ["MANAGED", "Management", "Request", "managed"]

#: Lines for the server's file; its working directory is its folder.
MANAGED = ("management management.sock unix", "management-client-auth", "auth-user-pass-optional")


@dataclass
class Request:
    """What the server asks its manager: ``CONNECT``, ``REAUTH``, ``CR_RESPONSE``, or tells it."""

    kind: str
    cid: int
    kid: int
    #: The answer to CR_TEXT, decoded.
    response: str = ""
    env: dict[str, str] = field(default_factory=dict)

    @property
    def username(self) -> str:
        """As the client sent it."""
        return self.env.get("username", "")

    @property
    def password(self) -> str:
        """As the client sent it."""
        return self.env.get("password", "")

    @property
    def static_challenge(self) -> tuple[str, str]:
        """Password and response of an SCRV1 password."""
        kind, password, response = self.password.split(":")
        if kind != "SCRV1":
            raise LabError("no SCRV1 password")
        return base64.b64decode(password).decode(), base64.b64decode(response).decode()


class Management:
    """The open socket. All waits end with the test's own time limit."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._requests, self._request_inlet = trio.open_memory_channel[Request](math.inf)
        self._replies, self._reply_inlet = trio.open_memory_channel[str](math.inf)

    async def read(self) -> None:
        """Take in what the server writes, until it goes."""
        partial: Request | None = None
        data = b""
        async for piece in self._stream:
            *lines, data = (data + piece).split(b"\n")
            for line in (raw.decode(errors="replace").rstrip("\r") for raw in lines):
                if not line.startswith(">"):
                    self._replies.send_nowait(line)
                elif line == ">CLIENT:ENV,END" and partial is not None:
                    self._requests.send_nowait(partial)
                    partial = None
                elif line.startswith(">CLIENT:ENV,") and partial is not None:
                    name, _, value = line.removeprefix(">CLIENT:ENV,").partition("=")
                    partial.env[name] = value
                elif line.startswith((">CLIENT:CONNECT,", ">CLIENT:REAUTH,", ">CLIENT:CR_RESPONSE,")):
                    kind, cid, kid, *rest = line.removeprefix(">CLIENT:").split(",")
                    answer = base64.b64decode(rest[0]).decode() if rest else ""
                    partial = Request(kind, int(cid), int(kid), answer)

    async def command(self, text: str) -> str:
        """Send a command; LabError unless the server says SUCCESS."""
        await self._stream.send_all(text.encode() + b"\n")
        reply = await self._reply_inlet.receive()
        if not reply.startswith("SUCCESS"):
            raise LabError(f"{text}: {reply}")
        return reply

    async def next(self, kind: str) -> Request:
        """The next request of ``kind``; others before it are skipped."""
        while True:
            request = await self._request_inlet.receive()
            if request.kind == kind:
                return request

    async def admit(self, request: Request) -> None:
        """Let the client in."""
        await self.command(f"client-auth-nt {request.cid} {request.kid}")

    async def deny(self, request: Request, reason: str | None = None) -> None:
        """Refuse; ``reason`` is what follows ``AUTH_FAILED,``."""
        told = "" if reason is None else f' "{reason}"'
        await self.command(f'client-deny {request.cid} {request.kid} "the test says so"{told}')

    async def let_wait(self, request: Request, extra: str, seconds: int) -> None:
        """AUTH_PENDING with its timeout, then ``INFO_PRE,extra``."""
        await self.command(f'client-pending-auth {request.cid} {request.kid} "{extra}" {seconds}')

    async def push(self, request: Request, *options: str) -> None:
        """Let the client in, with further options in the push grammar."""
        lines = "".join(f'push "{option}"\n' for option in options)
        await self.command(f"client-auth {request.cid} {request.kid}\n{lines}END")

    async def kill(self, request: Request, message: str = "RESTART") -> None:
        """Send RESTART, HALT or one of their forms, and forget the client."""
        await self.command(f'client-kill {request.cid} "{message}"')


@asynccontextmanager
async def managed(folder: Path) -> AsyncIterator[Management]:
    """The management interface of the server in ``folder``."""
    stream = await trio.open_unix_socket(folder / "management.sock")
    management = Management(stream)
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(management.read)
        yield management
        nursery.cancel_scope.cancel()
