"""What ping, fetch and trace share: their options, the profile, credentials, progress while connecting."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import click
import trio

from ..config.model import Credentials, TunnelConfig
from ..errors import ConfigError, Stage
from ..events import (
    AuthPending,
    DialDone,
    DialStarted,
    Event,
    KeysGenerated,
    Ready,
    Reconnecting,
    ResetDone,
    ResetSent,
    TLSHandshakeDone,
    Warned,
)
from ..profiles import load_config
from ..trace_sinks import LoggingTracer
from .printable import printable

__all__ = ["ConnectingStatus", "debug_tracer", "load_settings", "run", "tunnel_options", "writable_path"]

Result = TypeVar("Result")
Command = Callable[..., Any]

#: What the connection waits for after an event.
STAGES: dict[type[Event], Stage] = {
    DialStarted: Stage.DIAL,
    ResetSent: Stage.RESET,
    ResetDone: Stage.TLS_HANDSHAKE,
    TLSHandshakeDone: Stage.KEY_EXCHANGE,
    KeysGenerated: Stage.PUSH,
}
#: Longest first line of a credentials file that makes sense, bytes.
MAX_CREDENTIALS_FILE = 4096


def tunnel_options(command: Command) -> Command:
    """Add the options that every command with a tunnel takes."""
    options = [
        click.option(
            "--config", "-c", "profile", required=True, metavar="FILE",
            type=click.Path(exists=True, dir_okay=False), help="The .ovpn profile.",
        ),
        click.option(
            "--auth-user-pass", "credentials_file", metavar="FILE", type=click.Path(exists=True, dir_okay=False),
            help="User name on the first line, password on the second. Without it a profile that needs "
            "credentials makes this command ask on the terminal.",
        ),
        click.option("--timeout", type=click.FloatRange(min=0.1), default=None, metavar="S",
                     help="Give up connecting after S seconds. A server's name without an address is not asked for "
                     "again, whatever resolv-retry says."),
        click.option("--debug", is_flag=True, expose_value=False, callback=_set_debug,
                     help="Show tracebacks and the log."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    root = ctx.find_root()
    if root.obj is None:
        root.obj = {}
    root.obj["debug"] = root.obj.get("debug", False) or value


def _debugging() -> bool:
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.find_root().obj) and bool(ctx.find_root().obj.get("debug"))


def debug_tracer() -> LoggingTracer | None:
    """A tracer for the log that --debug asks for."""
    return LoggingTracer() if _debugging() else None


def writable_path(ctx: click.Context, param: click.Parameter, value: Result) -> Result:
    """A callback of --output: wrong usage is found out before anything is dialled."""
    name = getattr(value, "name", None)
    if isinstance(name, str) and name != "-" and not name.startswith("<"):
        folder = os.path.dirname(os.path.abspath(name))
        if os.path.isdir(name) or not os.access(name if os.path.exists(name) else folder, os.W_OK):
            raise click.BadParameter(f"'{name}' cannot be written", ctx=ctx, param=param)
    return value


def load_settings(profile: str, credentials_file: str | None) -> TunnelConfig:
    """The profile as a TunnelConfig with the credentials of the file. Raises ConfigError.

    What is still missing is asked for when it is needed (prompts.py), if there is a terminal. A command is to come
    to an end: a server's name that has no address is not asked for again, whatever ``resolv-retry`` says.
    """
    credentials = None if credentials_file is None else Credentials(*read_credentials(credentials_file))
    config = load_config(profile, credentials=credentials)
    if config.needs_credentials and config.credentials is None and not sys.stdin.isatty():
        raise ConfigError(
            "a user name and a password are needed: give --auth-user-pass FILE",
            file=profile,
            directive="auth-user-pass",
        )
    return replace(config, resolv_retry=0.0)


def read_credentials(path: str) -> tuple[str, str]:
    """The two lines of a credentials file. Raises ConfigError, which never quotes them."""
    try:
        with open(path, "rb") as file:
            lines = file.read(MAX_CREDENTIALS_FILE).decode().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot be read: {getattr(exc, 'strerror', None) or 'not UTF-8'}", file=path) from None
    if len(lines) < 2 or not lines[0]:
        raise ConfigError("the first line must be the user name, the second the password", file=path)
    return lines[0], lines[1]


class ConnectingStatus:
    """The stage that the connection has reached, on stderr: a spinner on a terminal, nothing elsewhere."""

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self.stage: Stage = Stage.DIAL
        self._quiet = quiet
        self._ready = self._lost = False
        self.console: Console = Console(stderr=True, soft_wrap=True)
        self._pauses = 0
        self._status = None if quiet or not self.console.is_terminal else self.console.status("Connecting")
        if self._status is not None:
            self._status.start()

    def on_event(self, event: Event) -> None:
        """Show one event; stop at Ready. Later only a loss is worth a line, and the end of it."""
        self.stage = STAGES.get(type(event), self.stage)
        if isinstance(event, Warned):
            self.console.print(f"warning: {printable(event.text)}", style="yellow", markup=False)
        if isinstance(event, Reconnecting) and self._ready and not self._lost and not self._quiet:
            self._lost = True
            reason = printable(event.reason)
            self.console.print(f"minivpn-trio: the tunnel was lost: {reason}; connecting again", markup=False)
        elif isinstance(event, Ready):
            if self._lost:
                self.console.print("minivpn-trio: the tunnel is back", markup=False)
            self._ready, self._lost = True, False
        if self._status is None:
            return
        if isinstance(event, Ready):
            self.stop()
            return
        text = stage_text(event)
        if text:
            self._status.update(text)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No spinner while somebody types. May be entered again inside."""
        self._pauses += 1
        if self._status is not None:
            self._status.stop()
        try:
            yield
        finally:
            self._pauses -= 1
            if self._status is not None and not self._pauses:
                self._status.start()

    def stop(self) -> None:
        """Take the spinner away. Idempotent."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def stage_text(event: Event) -> str | None:
    """A few words about an event of the connection's life; None: nothing to say."""
    match event:
        case DialStarted():
            return f"Dialling {event.host} port {event.port} ({event.proto})"
        case DialDone():
            return f"Waiting for {event.host}"
        case AuthPending():
            return "Waiting for the login to be confirmed"
        case ResetDone():
            return "TLS handshake"
        case TLSHandshakeDone():
            return f"Key exchange ({event.version})"
        case KeysGenerated():
            return f"Keys for {event.cipher}"
        case Reconnecting():
            return f"Reconnecting: {printable(event.reason)}"
        case _:
            return None


def run(main: Callable[[], Awaitable[Result]]) -> Result:
    """``trio.run`` with the log on stderr where --debug asks for it."""
    if _debugging():
        logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)6d ms %(name)s: %(message)s")
    return trio.run(main)
