"""The real openvpn, as a server and as a client, each in its own namespace.

One ``ServerOptions`` describes both ends: ``config`` is the server's file, ``profile`` what any
client (the C one or ours) needs to connect to it.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from .namespaces import LabError, Namespace, tool
from .pki import Authority, Identity, static_key

__all__ = ["PASSWORD", "USERNAME", "Credentials", "OpenVPN", "ServerOptions", "config", "profile"]

USERNAME, PASSWORD = "alice", "correct horse"
_READY = "Initialization Sequence Completed"

_VERIFY_SCRIPT = f"""#!/bin/sh
# openvpn hands over a file: user name, then password.
test "$(sed -n 1p "$1")" = "{USERNAME}" && test "$(sed -n 2p "$1")" = "{PASSWORD}"
"""


def tls_crypt_v2_keys(*, metadata: str | None = None) -> tuple[str, str]:
    """Files of a new server key and a client key; ``metadata`` is base64."""
    with tempfile.TemporaryDirectory() as folder:
        server, client = Path(folder, "server.key"), Path(folder, "client.key")
        run = [tool("openvpn"), "--genkey", "tls-crypt-v2-server", str(server)]
        subprocess.run(run, check=True, capture_output=True)
        run = [tool("openvpn"), "--tls-crypt-v2", str(server), "--genkey", "tls-crypt-v2-client", str(client)]
        subprocess.run([*run, *filter(None, [metadata])], check=True, capture_output=True)
        return server.read_text(), client.read_text()


@dataclass(frozen=True)
class Credentials:
    """All secrets of one laboratory."""

    ca: Authority = field(default_factory=Authority)
    wrong_ca: Authority = field(default_factory=lambda: Authority("Somebody else's CA"))
    key: str = field(default_factory=static_key)
    #: Of tls-crypt-v2, made by openvpn: the server's key, and a client's that belongs to it.
    v2_keys: tuple[str, str] = field(default_factory=lambda: tls_crypt_v2_keys())

    def __post_init__(self) -> None:
        object.__setattr__(self, "server", self.ca.server())
        object.__setattr__(self, "client", self.ca.client())

    server: Identity = field(init=False)
    client: Identity = field(init=False)


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server is set up. The defaults are those of a plain 2.6 server."""

    transport: Literal["udp", "tcp"] = "udp"
    outer: Literal["4", "6"] = "4"
    port: int = 1194
    cipher: str = "AES-256-GCM"
    auth: str = "SHA256"
    wrap: Literal["none", "tls-auth", "tls-crypt", "tls-crypt-v2"] = "none"
    #: None: no key-direction on either side.
    key_direction: bool | None = True
    #: The client's; the server has the other one.
    client_direction: Literal[0, 1] = 1
    #: tls-crypt-v2: refuse clients that cannot send their key twice.
    force_cookie: bool = False
    topology: Literal["subnet", "net30"] = "subnet"
    compression: Literal["none", "comp-lzo-no", "stub", "stub-v2"] = "none"
    user_pass: bool = False
    client_cert: bool = True
    tls_version: Literal["1.2", "1.3"] | None = None
    inner_ipv6: bool = True
    reneg_sec: int | None = None
    keepalive: tuple[int, int] = (10, 60)
    exit_notify: bool = False
    #: Further lines for the server's file.
    extra: tuple[str, ...] = ()

    @property
    def proto(self) -> str:
        """``udp4``, ``tcp6-server`` ..."""
        return f"{self.transport}{self.outer}" + ("-server" if self.transport == "tcp" else "")


_COMPRESSION = {"none": [], "comp-lzo-no": ["comp-lzo no"], "stub": ["compress"], "stub-v2": ["compress stub-v2"]}


def _inline(tag: str, text: str) -> str:
    return f"<{tag}>\n{text.strip()}\n</{tag}>"


def _wrap_lines(options: ServerOptions, credentials: Credentials, *, server: bool) -> list[str]:
    if options.wrap == "none":
        return []
    if options.wrap == "tls-crypt-v2":
        # The server's is in a file: an inline one leaves no place for what follows the name.
        return [] if server else [_inline(options.wrap, credentials.v2_keys[1])]
    lines = [_inline(options.wrap, credentials.key)]
    if options.wrap == "tls-auth" and options.key_direction:
        lines.append(f"key-direction {1 - options.client_direction if server else options.client_direction}")
    return lines


def config(options: ServerOptions, credentials: Credentials, folder: Path) -> str:
    """The server's configuration file; a script it needs is written to ``folder``."""
    lines = [
        f"proto {options.proto}",
        f"port {options.port}",
        "dev tun0",
        "dev-type tun",
        "disable-dco",
        "verb 4",
        f"topology {options.topology}",
        "server 10.8.0.0 255.255.255.0",
        "dh none",
        f"data-ciphers {options.cipher}",
        f"data-ciphers-fallback {options.cipher}",
        f"auth {options.auth}",
        "keepalive {} {}".format(*options.keepalive),
        'push "dhcp-option DNS 10.8.0.1"',
        "duplicate-cn",
        "tcp-nodelay" if options.transport == "tcp" else "",
        *_COMPRESSION[options.compression],
        *_wrap_lines(options, credentials, server=True),
        _inline("ca", credentials.ca.pem),
        _inline("cert", credentials.server.cert),
        _inline("key", credentials.server.key),
    ]
    if options.wrap == "tls-crypt-v2":
        key = folder / "v2-server.key"
        key.touch(0o600)
        key.write_text(credentials.v2_keys[0])
        lines.append(f'tls-crypt-v2 "{key}"' + (" force-cookie" if options.force_cookie else ""))
    if options.inner_ipv6:
        lines.append("server-ipv6 fd08::/64")
    if options.tls_version is not None:
        lines += [f"tls-version-min {options.tls_version}", f"tls-version-max {options.tls_version}"]
    if options.reneg_sec is not None:
        lines.append(f"reneg-sec {options.reneg_sec} {options.reneg_sec}")
    if options.exit_notify:
        lines.append("explicit-exit-notify 1")
    if options.user_pass:
        script = folder / "verify.sh"
        script.write_text(_VERIFY_SCRIPT)
        script.chmod(0o700)
        lines += ["script-security 2", f'auth-user-pass-verify "{script}" via-file', f"tmp-dir {folder}"]
    if not options.client_cert:
        lines.append("verify-client-cert none")
    return "\n".join([*filter(None, lines), *options.extra]) + "\n"


def profile(
    options: ServerOptions,
    credentials: Credentials,
    host: str,
    *,
    ca: str | None = None,
    port: int | None = None,
    credentials_file: Path | None = None,
    reneg_sec: int = 0,
    extra: tuple[str, ...] = (),
) -> str:
    """A client's profile for that server, everything inline. It leaves renegotiation to the server
    unless told otherwise."""
    lines = [
        "client",
        "dev tun",
        "nobind",
        f"remote {host} {port or options.port} {options.transport}{options.outer}"
        + ("-client" if options.transport == "tcp" else ""),
        "remote-cert-tls server",
        f"data-ciphers {options.cipher}",
        f"auth {options.auth}",
        f"reneg-sec {reneg_sec}",
        *_COMPRESSION[options.compression],
        *_wrap_lines(options, credentials, server=False),
        _inline("ca", ca or credentials.ca.pem),
    ]
    if options.client_cert:
        lines += [_inline("cert", credentials.client.cert), _inline("key", credentials.client.key)]
    if options.user_pass:
        lines.append(f"auth-user-pass {credentials_file}" if credentials_file else "auth-user-pass")
    return "\n".join([*lines, *extra]) + "\n"


class OpenVPN:
    """One openvpn process. Stopped by its pid; its log is kept for whoever asks why."""

    def __init__(self, namespace: Namespace, config_file: Path, *, log: Path) -> None:
        self._namespace = namespace
        self._config_file = config_file
        self.log_file = log
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self.seconds_to_ready = 0.0

    def start(self, *, timeout: float = 15) -> None:
        """Start it and wait until it is initialized; LabError with its log when it is not."""
        self.launch()
        self.wait_for(_READY, timeout=timeout)

    def launch(self) -> None:
        """Start it without waiting."""
        if self._process is not None:
            raise LabError("it runs already")
        self._output = self.log_file.open("wb")
        self._launched = time.monotonic()
        self._process = self._namespace.popen(
            [tool("openvpn"), "--config", str(self._config_file)], output=self._output, cwd=self._config_file.parent
        )

    def wait_for(self, text: str, *, timeout: float = 15) -> None:
        """Wait until the log contains ``text``; LabError when it ends or takes too long."""
        deadline = time.monotonic() + timeout
        while text not in self.log:
            if self._process is None or self._process.poll() is not None:
                raise LabError(f"openvpn ended; its log:\n{self.log}")
            if time.monotonic() > deadline:
                raise LabError(f"openvpn did not say {text!r} in {timeout} s; its log:\n{self.log}")
            time.sleep(0.002)
        self.seconds_to_ready = time.monotonic() - self._launched

    @property
    def log(self) -> str:
        """All it has written since it was started."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def pid(self) -> int:
        """Its process id. LabError when it does not run."""
        if self._process is None:
            raise LabError("it does not run")
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: SIGSTOP makes a server silent, SIGUSR1 restarts it softly."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self, *, kill: bool = False) -> None:
        """End it: SIGTERM (it says goodbye where configured) or SIGKILL. Idempotent."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill() if kill else process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._output is not None:
            self._output.close()
            self._output = None

    @contextlib.contextmanager
    def running(self) -> Iterator[OpenVPN]:
        """Started inside the block, gone after it."""
        try:
            self.start()
            yield self
        finally:
            self.stop()
