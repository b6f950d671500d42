"""``minivpn-trio ping``: the round trip to a host inside the tunnel."""

from __future__ import annotations

import json
import math
import socket
from dataclasses import dataclass, field

import click
import trio

from ..dialer import TunDialer, open_tun_dialer
from ..errors import HandshakeTimeout, MiniVPNError
from .prompts import terminal_challenges
from .tunnel import ConnectingStatus, debug_tracer, load_settings, run, tunnel_options

__all__ = ["ping"]

#: How long the last replies may take, seconds; as ping's -W.
LINGER = 3.0
PAYLOAD = 56


@dataclass
class Tally:
    """What was sent and what came back. Round trips in seconds."""

    host: str = ""
    sent: int = 0
    rtts: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float | int | None]:
        """The closing figures: counts, loss in percent, times in milliseconds."""
        rtts = [rtt * 1000 for rtt in self.rtts]
        mean = sum(rtts) / len(rtts) if rtts else None
        deviation = None if mean is None else math.sqrt(sum((rtt - mean) ** 2 for rtt in rtts) / len(rtts))
        return {
            "transmitted": self.sent,
            "received": len(rtts),
            "loss_percent": round(100 * (1 - len(rtts) / self.sent), 1) if self.sent else 0.0,
            "min_ms": round(min(rtts), 3) if rtts else None,
            "avg_ms": round(mean, 3) if mean is not None else None,
            "max_ms": round(max(rtts), 3) if rtts else None,
            "mdev_ms": round(deviation, 3) if deviation is not None else None,
        }


@click.command()
@tunnel_options
@click.option("--count", "-n", type=click.IntRange(min=1), default=None, metavar="N",
              help="Stop after N requests. Without it: until interrupted.")  # fmt: skip
@click.option("--interval", "-i", type=click.FloatRange(min=0.01), default=1.0, metavar="S", show_default=True,
              help="Seconds between requests.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a reply, and one at the end.")
@click.argument("host", required=False)
def ping(
    profile: str,
    credentials_file: str | None,
    timeout: float | None,
    count: int | None,
    interval: float,
    as_json: bool,
    host: str | None,
) -> None:
    """Ping HOST through the tunnel; without HOST the gateway that the server pushed.

    HOST is an address or a name, which is resolved inside the tunnel. Exit
    status 0 if at least one reply came, 1 if none did.

    \b
    Example:
      minivpn-trio ping --config client.ovpn --count 3 10.8.0.1
    """
    config = load_settings(profile, credentials_file)
    tally = Tally()

    async def main() -> None:
        status = ConnectingStatus(quiet=as_json)
        try:
            with trio.move_on_after(timeout or math.inf) as connecting:
                async with open_tun_dialer(
                    config,
                    on_event=status.on_event,
                    on_challenge=terminal_challenges(status.paused),
                    tracer=debug_tracer(),
                ) as dialer:
                    connecting.deadline = math.inf
                    await ping_host(dialer, host, tally, count, interval, as_json)
            if connecting.cancelled_caught:
                raise HandshakeTimeout(f"no tunnel within {timeout:g} s", stage=status.stage)
        finally:
            status.stop()

    try:
        run(main)
    except* KeyboardInterrupt:
        if not tally.sent:
            raise SystemExit(130) from None
    finish(tally, as_json)
    if not tally.rtts:
        raise SystemExit(1)


async def ping_host(
    dialer: TunDialer, host: str | None, tally: Tally, count: int | None, interval: float, as_json: bool
) -> None:
    """Send requests at a steady pace and report replies as they come."""
    info = dialer.tunnel_info
    target = host or (str(info.gateway) if info.gateway else str(info.gateway_ipv6) if info.gateway_ipv6 else None)
    if target is None:
        raise MiniVPNError("the server pushed no gateway: name a HOST to ping")
    try:
        address = str((await dialer.getaddrinfo(target, 0))[0][4][0])
    except socket.gaierror as exc:
        raise MiniVPNError(f"{target}: {exc.strerror}") from exc
    tally.host = target
    if not as_json:
        click.echo(f"PING {target} ({address}): {PAYLOAD} data bytes")
    with trio.CancelScope() as everything:
        async with trio.open_nursery() as nursery:
            start = trio.current_time()
            while count is None or tally.sent < count:
                tally.sent += 1
                nursery.start_soon(ping_once, dialer, address, tally, as_json, tally.sent)
                await trio.sleep_until(start + tally.sent * interval if tally.sent != count else trio.current_time())
            everything.deadline = trio.current_time() + LINGER


async def ping_once(dialer: TunDialer, address: str, tally: Tally, as_json: bool, sequence: int) -> None:
    """One request and its reply, if any."""
    with trio.move_on_after(LINGER):
        try:
            rtt = await dialer.ping(address, size=PAYLOAD)
        except OSError as exc:
            if not as_json:
                click.echo(f"From {address}: icmp_seq={sequence} {exc.strerror or exc}", err=True)
            return
        tally.rtts.append(rtt)
        if as_json:
            line = {"seq": sequence, "host": address, "bytes": PAYLOAD + 8, "rtt_ms": round(rtt * 1000, 3)}
            click.echo(json.dumps(line))
        else:
            click.echo(f"{PAYLOAD + 8} bytes from {address}: icmp_seq={sequence} time={rtt * 1000:.3f} ms")


def finish(tally: Tally, as_json: bool) -> None:
    """The closing statistics."""
    if not tally.sent:
        return
    summary = tally.summary()
    if as_json:
        click.echo(json.dumps(summary))
        return
    click.echo(f"\n--- {tally.host} ping statistics ---")
    click.echo(
        f"{summary['transmitted']} packets transmitted, {summary['received']} received, "
        f"{summary['loss_percent']:g}% packet loss"
    )
    if tally.rtts:
        click.echo(
            f"rtt min/avg/max/mdev = {summary['min_ms']:.3f}/{summary['avg_ms']:.3f}/"
            f"{summary['max_ms']:.3f}/{summary['mdev_ms']:.3f} ms"
        )
