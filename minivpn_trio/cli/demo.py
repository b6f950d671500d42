"""``minivpn-trio demo``: the whole thing on this machine, in a few seconds."""

from __future__ import annotations

from typing import Any

import click
import trio

from ..dialer import TunDialer, open_tun_dialer
from ..errors import MiniVPNError
from ..events import Closed, Event
from ..testing import VPNServer, open_vpn_server
from ..testing.services import chargen, discard, http_handler, pattern
from .tunnel import run

__all__ = ["demo"]

PAGE = b"Hello from the far side of the tunnel.\n"
PINGS = 5
#: How long each direction's throughput is measured, seconds.
MEASURE = 2.0
#: The whole demonstration must be over by then, seconds.
LIMIT = 60.0


@click.command()
@click.option("--proto", type=click.Choice(["udp", "tcp"]), default="udp", show_default=True,
              help="The transport between client and server.")  # fmt: skip
@click.option("--debug", is_flag=True, expose_value=False,
              callback=lambda ctx, _, value: ctx.find_root().obj.__setitem__("debug", True) if value else None,
              help="Show tracebacks and the log.")  # fmt: skip
def demo(proto: Any) -> None:
    """Run client and server in this process, over a real socket on 127.0.0.1.

    Makes certificates, starts the in-process server of minivpn_trio.testing,
    connects, shows the handshake's timeline, pings, fetches a page that is
    served behind the server, measures the throughput and cleans up. Needs no
    root, no network and no profile.
    """
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)

    async def main() -> None:
        with trio.move_on_after(LIMIT):
            async with open_vpn_server(proto=proto) as server, trio.open_nursery() as nursery:
                console.print(f"server    127.0.0.1 port {server.port} ({proto}), inside the tunnel {server.address}")
                pages = {"/": PAGE}
                await nursery.start(server.host.serve_tcp, http_handler(pages), 80)
                await nursery.start(server.host.serve_tcp, chargen, 19)
                await nursery.start(server.host.serve_tcp, discard, 9)
                await nursery.start(server.host.serve_dns, {"demo.test": server.address})
                try:
                    await use(server, console)
                finally:
                    nursery.cancel_scope.cancel()
            return
        raise MiniVPNError(f"not done within {LIMIT:g} s")

    run(main)


async def use(server: VPNServer, console: Any) -> None:
    """Connect to the server and try everything."""
    began = trio.current_time()

    def show(event: Event) -> None:
        if not isinstance(event, Closed):
            console.print(f"{(event.time - began) * 1000:6.1f} ms  {describe(event)}", markup=False)

    async with open_tun_dialer(server.client_config(), on_event=show) as dialer:
        info = dialer.tunnel_info
        console.print(f"tunnel    {info.ipv4}, gateway {info.gateway}, MTU {info.mtu}, {info.cipher}")
        rtts = [await dialer.ping(server.address) for _ in range(PINGS)]
        console.print(f"ping      {server.address}: {min(rtts) * 1000:.2f} ms at best, {PINGS} of {PINGS} came back")
        body = await fetch("http://demo.test/", dialer)
        if body != PAGE:
            raise MiniVPNError("the page that came back is not the one that was served")
        console.print(f"fetch     http://demo.test/: {body.decode().strip()!r}")
        console.print(f"download  {await download(dialer, server.address):.0f} MB/s (both ends in this process)")
        console.print(f"upload    {await upload(dialer, server.address):.0f} MB/s")
        stats = dialer.stats()
        console.print(
            f"packets   {stats.transport.packets_in} in, {stats.transport.packets_out} out, "
            f"{stats.control.retransmissions} control packets sent again"
        )
    console.print("closed    said goodbye, nothing left behind")


async def fetch(url: str, dialer: TunDialer) -> bytes:
    """The body of ``url``, through the tunnel, by httpx."""
    import httpx

    from ..integrations.httpcore import TunnelTransport

    async with httpx.AsyncClient(transport=TunnelTransport(dialer)) as client:
        response = await client.get(url)
        response.raise_for_status()
        return response.content


async def download(dialer: TunDialer, address: str) -> float:
    """Megabytes a second from chargen, every byte checked."""
    stream = await dialer.open_tcp_stream(address, 19)
    received = 0
    async with stream:
        began = trio.current_time()
        while trio.current_time() - began < MEASURE:
            data = await stream.receive_some(256 * 1024)
            if data != pattern(len(data), received):
                raise MiniVPNError("bytes were lost or changed on the way")
            received += len(data)
        return received / (trio.current_time() - began) / 1e6


async def upload(dialer: TunDialer, address: str) -> float:
    """Megabytes a second into a server that says how many bytes it got."""
    stream = await dialer.open_tcp_stream(address, 9)
    sent = 0
    block = bytes(256 * 1024)
    async with stream:
        began = trio.current_time()
        while trio.current_time() - began < MEASURE:
            await stream.send_all(block)
            sent += len(block)
        await stream.send_eof()
        counted = b""
        async for piece in stream:
            counted += piece
        took = trio.current_time() - began
    if int(counted) != sent:
        raise MiniVPNError(f"{sent} bytes went in, {int(counted)} came out")
    return sent / took / 1e6




def describe(event: Event) -> str:
    """An event as a line of the timeline."""
    fields = {name: getattr(event, name) for name in event.__dataclass_fields__ if name != "time"}
    return " ".join([type(event).__name__, *(f"{name}={value}" for name, value in fields.items() if value is not None)])
