"""Three namespaces: the server's, ours and the C client's, joined by veth pairs.

::

    ours ---- 10.77.1.0/24, fd77:1::/64 ---- server ---- 10.77.2.0/24, fd77:2::/64 ---- C client
    .2                                    .1  tun0  .1                                    .2
                                         10.8.0.1, fd08::1
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from . import openvpn
from .namespaces import LabError, Namespace, connect, tool
from .openvpn import Credentials, OpenVPN, ServerOptions

__all__ = ["OURS", "THEIRS", "TUN_IPV4", "TUN_IPV6", "Lab", "Server", "why_not"]

#: The server's addresses as seen from our namespace and from the C client's, by outer family.
OURS = {"4": "10.77.1.1", "6": "fd77:1::1"}
THEIRS = {"4": "10.77.2.1", "6": "fd77:2::1"}
TUN_IPV4, TUN_IPV6 = "10.8.0.1", "fd08::1"


def why_not() -> str | None:
    """Why no laboratory can be set up here, in one line; None when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("openvpn", "ip", "nsenter", "setpriv", "obfs4proxy"):
        try:
            tool(program)
        except LabError as exc:
            return str(exc)
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun does not exist"
    return None


class Server(OpenVPN):
    """A running server, and profiles for it."""

    def __init__(self, lab: Lab, options: ServerOptions, folder: Path) -> None:
        self.options = options
        self._lab = lab
        folder.mkdir()
        self.folder = folder
        config_file = folder / "server.conf"
        config_file.touch(0o600)
        config_file.write_text(openvpn.config(options, lab.credentials, folder))
        super().__init__(lab.server_namespace, config_file, log=folder / "server.log")

    @property
    def host(self) -> str:
        """Its outer address as seen from our namespace."""
        return OURS[self.options.outer]

    def profile(
        self,
        *,
        host: str | None = None,
        ca: str | None = None,
        port: int | None = None,
        credentials_file: Path | None = None,
        reneg_sec: int = 0,
        extra: tuple[str, ...] = (),
    ) -> str:
        """The text of a profile that connects to it from our namespace."""
        return openvpn.profile(
            self.options, self._lab.credentials, host or self.host, ca=ca, port=port,
            credentials_file=credentials_file, reneg_sec=reneg_sec, extra=extra,
        )  # fmt: skip

    def profile_file(
        self,
        name: str = "client.ovpn",
        *,
        host: str | None = None,
        ca: str | None = None,
        port: int | None = None,
        credentials_file: Path | None = None,
        reneg_sec: int = 0,
        extra: tuple[str, ...] = (),
    ) -> Path:
        """``profile`` as a file."""
        path = self.folder / name
        path.touch(0o600)
        path.write_text(
            self.profile(
                host=host, ca=ca, port=port, credentials_file=credentials_file, reneg_sec=reneg_sec, extra=extra
            )
        )
        return path

    def password_file(self, *, username: str = openvpn.USERNAME, password: str = openvpn.PASSWORD) -> Path:
        """A file for auth-user-pass."""
        path = self.folder / f"password-{username}-{len(password)}.txt"
        path.touch(0o600)
        path.write_text(f"{username}\n{password}\n")
        return path

    def c_client(self, *, ca: str | None = None, port: int | None = None, extra: tuple[str, ...] = ()) -> OpenVPN:
        """The C client for this server, in the namespace of its own; not started yet."""
        path = self.profile_file(
            "c-client.ovpn",
            host=THEIRS[self.options.outer],
            credentials_file=self.password_file() if self.options.user_pass else None,
            ca=ca,
            port=port,
            extra=("dev tun1", "dev-type tun", "disable-dco", "verb 4", *extra),
        )
        return OpenVPN(self._lab.c_namespace, path, log=self.folder / "c-client.log")


class Lab:
    """The whole laboratory, as a ``with`` block. Nothing of it outlives the process.

    ``congestion`` is the congestion control of what the services send; None: the machine's default.
    """

    def __init__(self, folder: Path, congestion: str | None = None) -> None:
        reason = why_not()
        if reason is not None:
            raise LabError(reason)
        self.folder = folder
        self.congestion = congestion
        self.credentials = Credentials()
        self._numbers = itertools.count(1)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Lab:
        with contextlib.ExitStack() as stack:
            self.server_namespace = self._namespace(stack)
            self.our_namespace = self._namespace(stack)
            self.c_namespace = self._namespace(stack)
            connect(self.server_namespace, self.our_namespace, interface="ours", net4="10.77.1", net6="fd77:1")
            connect(self.server_namespace, self.c_namespace, interface="theirs", net4="10.77.2", net6="fd77:2")
            self._start_services(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @staticmethod
    def _namespace(stack: contextlib.ExitStack) -> Namespace:
        namespace = Namespace()
        stack.callback(namespace.close)
        return namespace

    def _start_services(self, stack: contextlib.ExitStack) -> None:
        log = self.folder / "services.log"
        output: IO[bytes] = stack.enter_context(log.open("wb"))
        script = Path(__file__).with_name("services.py")
        web = self.credentials.ca.server("web.lab")
        cert, key = self.folder / "web.crt", self.folder / "web.key"
        cert.write_text(web.cert)
        key.touch(0o600)
        key.write_text(web.key)
        command = [sys.executable, str(script), str(cert), str(key), *filter(None, [self.congestion])]
        process = self.server_namespace.popen(command, output=output)

        def stop() -> None:
            process.kill()
            process.wait()

        stack.callback(stop)
        deadline = time.monotonic() + 15
        while "ready" not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"the services did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.01)

    @contextlib.contextmanager
    def server(self, options: ServerOptions | None = None) -> Iterator[Server]:
        """A server, up inside the block."""
        server = Server(self, options or ServerOptions(), self.folder / f"server-{next(self._numbers)}")
        with server.running():
            yield server

    def in_c_namespace(self, *argv: str, timeout: float = 60) -> str:
        """Run a command beside the C client and return its output."""
        return self.c_namespace.run(*argv, timeout=timeout)

    def python_in_c_namespace(self, code: str, *args: str, timeout: float = 60) -> str:
        """Run a few lines of Python beside the C client and return what they print."""
        done = subprocess.run(
            self.c_namespace.command(sys.executable, "-I", "-c", code, *args), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise LabError(f"in the C client's namespace: {done.stderr.strip()}")
        return done.stdout
