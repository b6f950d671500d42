"""``minivpn-trio trace``: the handshake as JSON, for people who measure networks."""

from __future__ import annotations

import json
import math
from typing import Any

import click
import trio

from ..client import open_client
from ..config.model import Remote, TunnelConfig
from ..errors import ConnectError, HandshakeTimeout
from ..events import DialDone, DialStarted, Event, Ready
from ..trace_sinks import ArchivalTracer, TeeTracer
from .prompts import terminal_challenges
from .tunnel import ConnectingStatus, debug_tracer, load_settings, run, tunnel_options, writable_path

__all__ = ["trace"]


@click.command()
@tunnel_options
@click.option("--output", "-o", type=click.File("w", lazy=True), default="-", metavar="FILE",
              callback=writable_path, help="Where to write; default: stdout.")  # fmt: skip
def trace(profile: str, credentials_file: str | None, timeout: float | None, output: Any) -> None:
    """Connect once, write what the handshake looked like, and leave.

    The object has the field names of OONI's openvpn test: success, failure,
    bootstrap_time, openvpn_handshake and network_events with one entry for
    each state change and each control packet in, out or dropped. It is written
    for a failed handshake too; then the exit status is 1.

    \b
    Example:
      minivpn-trio trace --config client.ovpn -o handshake.json
    """
    config = load_settings(profile, credentials_file)
    tracer = ArchivalTracer()
    log = debug_tracer()
    handshake = Handshake(config)

    async def main() -> None:
        handshake.began = trio.current_time()
        with trio.move_on_after(timeout or math.inf) as scope:
            async with open_client(
                config,
                on_event=handshake.on_event,
                tracer=tracer if log is None else TeeTracer([tracer, log]),
                on_challenge=terminal_challenges(),
            ):
                scope.deadline = math.inf
        if scope.cancelled_caught:
            raise HandshakeTimeout(f"no tunnel within {timeout:g} s", stage=handshake.status.stage)

    failure: ConnectError | None = None
    try:
        run(main)
    except ConnectError as exc:
        failure = exc
    json.dump(handshake.report(tracer, failure), output, indent=2)
    output.write("\n")
    if failure is not None:
        raise failure


class Handshake:
    """Collects what the report says beside the packets."""

    def __init__(self, config: TunnelConfig) -> None:
        self._config = config
        self.status: ConnectingStatus = ConnectingStatus(quiet=True)
        self.began: float = 0.0
        self.took: float | None = None
        self._host, self._port, self._proto = "", 0, ""
        self._address: str | None = None

    def on_event(self, event: Event) -> None:
        """Note where the connection went and how long it took."""
        self.status.on_event(event)
        if isinstance(event, DialStarted):
            self._host, self._port, self._proto = event.host, event.port, event.proto
        elif isinstance(event, DialDone):
            self._address = event.address
        elif isinstance(event, Ready) and self.took is None:
            self.took = event.time - self.began

    def report(self, tracer: ArchivalTracer, failure: ConnectError | None) -> dict[str, Any]:
        """The whole object (ooni/spec ts-040-openvpn; times in seconds)."""
        transport = "tcp" if Remote(self._host, self._port, self._proto).is_tcp else "udp"  # type: ignore[arg-type]
        took = self.took or 0.0
        text = str(failure) if failure is not None else None
        address = self._address or self._host
        handshake = {
            "handshake_time": round(took, 6),
            "endpoint": f"{address}:{self._port}/{transport}",
            "failure": text,
            "ip": address,
            "port": self._port,
            "transport": transport,
            "provider": "",
            "openvpn_options": {
                "auth": self._config.auth,
                "cipher": self._config.cipher or "",
                "compression": self._config.compression,
            },
            "t0": 0.0,
            "t": round(took, 6),
            "tags": [],
            "transaction_id": 0,
        }
        return {
            "success": failure is None,
            "failure": text,
            "bootstrap_time": round(took, 6),
            "tunnel": "openvpn",
            "openvpn_handshake": [handshake],
            "network_events": tracer.events,
        }
