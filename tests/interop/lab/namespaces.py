"""Network namespaces without names.

A namespace here is an open file descriptor of this process. Nothing is mounted under
``/run/netns`` and no address is added to the machine's own interfaces, so several test runs never
meet, and when the process ends, however it ends, the kernel removes everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

__all__ = ["LabError", "Namespace", "connect", "tool"]

_CLONE_NEWNET = 0x40000000
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin")


class LabError(Exception):
    """The laboratory could not be set up; the text says what is missing."""


def tool(name: str) -> str:
    """The full path of a system program, also where the sbin folders are not on PATH."""
    for folder in (*os.environ.get("PATH", "").split(os.pathsep), *_SBIN):
        path = Path(folder) / name
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    raise LabError(f"{name} is not installed")


def _libc_call(name: str, *args: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{name}: {os.strerror(errno)}")


def _current() -> int:
    """A file descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Namespace:
    """One network namespace, alive until ``close`` and as long as a process is in it."""

    def __init__(self) -> None:
        self._fd = self._make()
        self.run("ip", "link", "set", "lo", "up")

    @staticmethod
    def _make() -> int:
        """Unshare in a thread of its own, so that the caller stays where it is."""
        made: list[int] = []
        failed: list[OSError] = []

        def unshare() -> None:
            try:
                _libc_call("unshare", _CLONE_NEWNET)
                made.append(_current())
            except OSError as exc:
                failed.append(exc)

        thread = threading.Thread(target=unshare)
        thread.start()
        thread.join()
        if failed:
            raise LabError(f"cannot make a network namespace ({failed[0]}); run as root")
        return made[0]

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def path(self) -> str:
        """A path that other processes can open while this one lives."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in this namespace inside the block: sockets that it makes belong there."""
        before = _current()
        try:
            _libc_call("setns", self._fd, _CLONE_NEWNET)
            try:
                yield
            finally:
                _libc_call("setns", before, _CLONE_NEWNET)
        finally:
            os.close(before)

    def command(self, *argv: str) -> list[str]:
        """``argv`` to be run inside, killed by the kernel should this process die first."""
        program = argv[0] if "/" in argv[0] else tool(argv[0])
        return [tool("setpriv"), "--pdeathsig", "KILL", tool("nsenter"), f"--net={self.path}", program, *argv[1:]]

    def run(self, *argv: str, check: bool = True, timeout: float = 60) -> str:
        """Run a command inside and return what it wrote to stdout and stderr."""
        done = subprocess.run(
            self.command(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {done.stdout.strip()}")
        return done.stdout

    def popen(self, argv: Sequence[str], *, output: IO[bytes], cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a process inside. Its pid is the program's own (nothing forks in between)."""
        return subprocess.Popen(
            self.command(*argv), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=cwd
        )


def connect(a: Namespace, b: Namespace, *, interface: str, net4: str, net6: str, mtu: int = 1500) -> None:
    """Join two namespaces by a veth pair: ``a`` gets host 1 of both /24 and /64, ``b`` host 2.

    ``net4`` is like ``10.77.1``, ``net6`` like ``fd77:1``. Checksum offloading stays on: the kernel
    completes what crosses a veth.
    """
    a.run("ip", "link", "add", interface, "type", "veth", "peer", "name", "uplink", "netns", b.path)
    for namespace, name, host in ((a, interface, 1), (b, "uplink", 2)):
        namespace.run("ip", "addr", "add", f"{net4}.{host}/24", "dev", name)
        namespace.run("ip", "-6", "addr", "add", f"{net6}::{host}/64", "dev", name, "nodad")
        namespace.run("ip", "link", "set", name, "mtu", str(mtu), "up")
