"""A small client of the public face, type checked where trio-typing's `trio-stubs` are installed.

Not run: ``nox -s stubs`` gives it to mypy.
"""

from __future__ import annotations

import trio

from minivpn_trio import TunDialer, open_tun_dialer


async def first_line(dialer: TunDialer, host: str) -> bytes:
    stream: trio.SocketStream = await dialer.open_tcp_stream(host, 80)
    async with stream:
        await stream.send_all(b"HEAD / HTTP/1.0\r\n\r\n")
        data: bytes = await stream.receive_some(1024)
        return data.partition(b"\r\n")[0]


async def main() -> None:
    async with open_tun_dialer("client.ovpn") as dialer:
        rtt: float = await dialer.ping("10.8.0.1")
        line: bytes = await first_line(dialer, "10.8.0.1")
        print(rtt, line, dialer.tunnel_info.cipher, dialer.stats().data.packets_in)


trio.run(main)
