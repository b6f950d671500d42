"""Reaching the server through an obfs4 bridge: a managed pluggable transport beside us.

The program (Debian: obfs4proxy; Tor's newer name: lyrebird) is started for each
connection, tells on its standard output where it listens for SOCKS 5, gets
the bridge's address as the destination and its cert as user name and password
(pluggable.py), and dies with the transport: it is killed on close, and
ends by itself should we be killed, since its standard input ends then.
A bridge that cannot be reached is an error; nothing is ever dialled directly.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile

import trio
from python_socks import ProxyError

from ..config.credentials import Credentials
from ..config.model import TunnelConfig
from ..config.proxy import Obfs4Bridge
from ..errors import ProtocolError
from .dial import in_words, lookup, open_socket
from .framing import max_frame_of
from .pluggable import Handshake, Refused, environment, socks_arguments
from .proxies import failure, socks_connect
from .stream import StreamTransport

__all__ = ["PROGRAMS", "Obfs4Transport", "dial_obfs4"]

#: In this order; the same program under two names.
PROGRAMS = ("obfs4proxy", "lyrebird")
#: How long a program may take to say where it listens, seconds.
START_TIMEOUT = 20.0
INSTALL = "install obfs4proxy (Debian: apt-get install obfs4proxy), or name the program in Obfs4Bridge(program=...)"
CHECK_BRIDGE = "check that the bridge runs, and its address and cert in the profile's proxy-obfs4"


class _Program:
    """One running pluggable transport and the folder that it may write to."""

    def __init__(self, process: trio.Process, folder: str) -> None:
        self._process = process
        self._folder = folder

    async def address(self, bridge: Obfs4Bridge) -> tuple[str, int]:
        """Where it listens. Raises TransportError."""
        handshake = Handshake("obfs4")
        output = self._process.stdout
        assert output is not None
        with trio.move_on_after(START_TIMEOUT):
            try:
                while handshake.address is None:
                    data = await output.receive_some()
                    if not data:
                        raise failure(bridge, "the obfs4 program ended before it listened", INSTALL)
                    handshake.handle_output_untrusted(bytes(data))
            except Refused as exc:
                raise failure(bridge, f"the obfs4 program says that {exc}", INSTALL) from None
            except ProtocolError as exc:
                raise failure(bridge, f"the obfs4 program is none: {exc.detail}", INSTALL) from None
            return handshake.address
        raise failure(bridge, f"the obfs4 program did not say within {START_TIMEOUT:g} s where it listens", INSTALL)

    async def end(self) -> None:
        """Kill it, wait until it is gone, and remove its folder. Idempotent, not cancelled."""
        with trio.CancelScope(shield=True):
            self._process.kill()
            await self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    await stream.aclose()
            shutil.rmtree(self._folder, ignore_errors=True)


class Obfs4Transport(StreamTransport):
    """Packets in a stream through a pluggable transport. Owns the program, which ends with it."""

    def __init__(self, stream: trio.SocketStream, program: _Program, *, max_frame: int) -> None:
        super().__init__(stream, None, max_frame=max_frame)
        self._program = program

    async def aclose(self) -> None:
        """Close the stream and end the program. Idempotent, checkpoints."""
        try:
            await super().aclose()
        finally:
            await self._program.end()


async def dial_obfs4(bridge: Obfs4Bridge, config: TunnelConfig) -> Obfs4Transport:
    """A transport through ``bridge``.

    Raises TransportError (stage DIAL). Checkpoints; cancelled, it leaves neither socket nor process.
    """
    program = await _start(bridge)
    try:
        host, port = await program.address(bridge)
        sock = await _connect(bridge, host, port, config)
    except BaseException:
        await program.end()
        raise
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    return Obfs4Transport(stream, program, max_frame=max_frame_of(config.tun_mtu))


async def _start(bridge: Obfs4Bridge) -> _Program:
    names = PROGRAMS if bridge.program is None else (bridge.program,)
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise failure(bridge, f"{' or '.join(names)} is not installed", INSTALL)
    folder = tempfile.mkdtemp(prefix="minivpn-obfs4-")
    try:
        process = await trio.lowlevel.open_process(
            [path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", os.defpath), **environment("obfs4", folder)},
            # Control-C on a terminal is for us; we end it.
            start_new_session=True,
        )
    except BaseException as exc:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(exc, OSError):
            raise failure(bridge, f"{path} cannot be run: {in_words(exc)}", INSTALL) from exc
        raise
    return _Program(process, folder)


async def _connect(bridge: Obfs4Bridge, host: str, port: int, config: TunnelConfig) -> socket.socket:
    """Through the program to the bridge. Raises TransportError."""
    try:
        username, password = socks_arguments({"cert": bridge.cert, "iat-mode": str(bridge.iat_mode)})
        ((family, address),) = await lookup(host, port, socket.SOCK_STREAM)
        # To this machine: the profile's local address is not meant for that.
        sock = await open_socket(family, address, socket.SOCK_STREAM, config, bind=False)
        await socks_connect(sock, bridge.host, bridge.port, Credentials(username, password))
    except ProxyError as exc:
        reason = "it cannot be reached, or does not know the cert" if exc.error_code else "the obfs4 program refused"
        raise failure(bridge, reason, CHECK_BRIDGE) from None
    except OSError as exc:
        raise failure(bridge, f"the obfs4 program: {in_words(exc)}", CHECK_BRIDGE) from exc
    except ValueError:
        raise failure(bridge, "a host or a cert that cannot be one", CHECK_BRIDGE) from None
    return sock
