"""``minivpn-trio fetch``: one URL through the tunnel."""

from __future__ import annotations

import math
import re
import sys
from typing import IO

import click
import httpx
import trio

from ..dialer import TunDialer, open_tun_dialer
from ..errors import HandshakeTimeout, MiniVPNError
from ..integrations.httpcore import TunnelTransport
from .prompts import terminal_challenges
from .tunnel import ConnectingStatus, debug_tracer, load_settings, run, tunnel_options, writable_path

__all__ = ["fetch"]


@click.command()
@tunnel_options
@click.option("--output", "-o", "output", type=click.File("wb", lazy=True), default=None, metavar="FILE",
              callback=writable_path, help="Where to write the body; default: stdout.")  # fmt: skip
@click.argument("url")
def fetch(
    profile: str, credentials_file: str | None, timeout: float | None, output: IO[bytes] | None, url: str
) -> None:
    """Fetch URL (http or https) through the tunnel and write its body.

    The name in URL is resolved inside the tunnel, by the resolvers that the
    server pushed. Redirects are followed, inside the tunnel too. A status of
    400 or more is a failure: exit status 1.

    \b
    Example:
      minivpn-trio fetch --config client.ovpn https://intranet.example/ -o page.html
    """
    if not url.lower().startswith(("http://", "https://")):
        raise click.BadParameter("must begin with http:// or https://", param_hint="URL")
    config = load_settings(profile, credentials_file)

    async def main() -> None:
        status = ConnectingStatus()
        try:
            with trio.move_on_after(timeout or math.inf) as connecting:
                async with open_tun_dialer(
                    config,
                    on_event=status.on_event,
                    on_challenge=terminal_challenges(status.paused),
                    tracer=debug_tracer(),
                ) as dialer:
                    connecting.deadline = math.inf
                    await download(dialer, url, output or sys.stdout.buffer, status)
            if connecting.cancelled_caught:
                raise HandshakeTimeout(f"no tunnel within {timeout:g} s", stage=status.stage)
        finally:
            status.stop()

    run(main)


async def download(dialer: TunDialer, url: str, output: IO[bytes], status: ConnectingStatus) -> None:
    """Stream the body of ``url`` into ``output``, with a progress bar on a terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    show = status.console.is_terminal and not (output is sys.stdout.buffer and sys.stdout.isatty())
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    try:
        async with (
            httpx.AsyncClient(transport=TunnelTransport(dialer), follow_redirects=True, timeout=30.0) as client,
            client.stream("GET", url) as response,
        ):
            if response.is_error:
                raise MiniVPNError(f"{url}: the server answered {response.status_code} {response.reason_phrase}")
            size = response.headers.get("Content-Length")
            with Progress(*columns, console=status.console, disable=not show, transient=True) as progress:
                task = progress.add_task("", total=int(size) if size and size.isdigit() else None)
                async for chunk in response.aiter_bytes():
                    output.write(chunk)
                    progress.advance(task, len(chunk))
            output.flush()
    except httpx.HTTPError as exc:
        # Python's "[Errno 111] " in front of a reason helps nobody here.
        reason = re.sub(r"^\[Errno -?\d+\] ", "", str(exc)) or type(exc).__name__
        raise MiniVPNError(f"{url}: {reason}") from exc
