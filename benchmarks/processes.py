"""Processes that the benchmarks of latency and of starting up begin and time.

They are begun inside a namespace without a program in between (``setpriv``, ``nsenter``) whose own start would count.
Both ends of a time are read where they happen: when the process is started, here; when it is ready, by itself. Nobody
polls for it, so the figure has no grain.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.interop.lab.lab import THEIRS, Server
from tests.interop.lab.namespaces import Namespace, tool

__all__ = ["PATIENCE", "ROOT", "CClient", "Worker", "at_ready", "compiled", "run_seconds"]

ROOT = Path(__file__).parent.parent
#: Seconds within which a tunnel must be up, or a process gone.
PATIENCE = 15.0
_READY = re.compile(r"^(\d+\.\d+) .*Initialization Sequence Completed", re.MULTILINE)


@contextlib.contextmanager
def compiled() -> Iterator[dict[str, str]]:
    """An environment in which Python keeps what it compiled, as it does where a package is installed; in a folder of
    its own, so that nothing is there before the first process and nothing is left behind."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        yield {**environment, "PYTHONPYCACHEPREFIX": folder}


def run_seconds(*command: str, environment: dict[str, str] | None = None) -> float:
    """Seconds that a command takes, from before it is started until it is gone. SystemExit if it fails."""
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return took


def at_ready(log: str) -> float | None:
    """Unix time at which openvpn, told to be machine readable, says that it was ready; None: not yet."""
    found = _READY.search(log)
    return float(found[1]) if found else None


class CClient:
    """The C client of a lab's server, started directly."""

    def __init__(self, namespace: Namespace, server: Server) -> None:
        self._namespace = namespace
        # Microseconds in the log. Should we be killed, it must not call for its server for ever.
        extra = ("dev tun1", "dev-type tun", "disable-dco", "verb 3", "machine-readable-output", "connect-retry-max 2")
        host = THEIRS[server.options.outer]
        self._config = server.profile_file("c-timed.ovpn", host=host, extra=extra)
        self._log = server.folder / "c-timed.log"
        self._process: subprocess.Popen[bytes] | None = None

    def connect(self) -> float:
        """Start it, again if it runs; seconds from its start until its tunnel is up. SystemExit if that fails."""
        self.stop()
        command = [tool("openvpn"), "--config", str(self._config)]
        with self._namespace.entered(), self._log.open("wb") as log:
            began = time.time()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._config.parent
            )
        while (ready := at_ready(self._log.read_text(errors="replace"))) is None:
            if self._process.poll() is not None or time.time() > began + PATIENCE:
                raise SystemExit(f"the C client did not connect:\n{self._log.read_text(errors='replace')}")
            time.sleep(0.005)
        return ready - began

    def stop(self) -> None:
        """End it. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Worker:
    """A Python process that reads an order a line, in JSON, and answers each by a line of JSON."""

    def __init__(self, namespace: Namespace, module: str, *argv: str) -> None:
        with namespace.entered():
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *argv],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True,
            )  # fmt: skip

    def tell(self, **order: Any) -> None:
        """Give an order, and do not wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next answer. SystemExit if the process is gone instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a worker failed; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order and wait for the answer."""
        self.tell(**order)
        return self.hear()

    def close(self) -> None:
        """End it. Idempotent."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
