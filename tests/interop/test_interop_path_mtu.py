"""The path to the server takes less than it did, in the middle of a transfer."""

from __future__ import annotations

import pytest
import trio

from minivpn_trio.events import TunnelChanged
from tests.interop.exchanges import EventLog, download, open_tunnel, upload
from tests.interop.lab.lab import TUN_IPV4
from tests.interop.lab.services import PATTERN
from tests.interop.test_interop_data import Wiretap, udp_echo, wiretap

__all__ = ["wiretap"]

NARROW = 1300


def set_mtu(lab, mtu: int) -> None:  # type: ignore[no-untyped-def]
    """Of both ends of the wire between the server and us."""
    lab.server_namespace.run("ip", "link", "set", "ours", "mtu", str(mtu))
    lab.our_namespace.run("ip", "link", "set", "uplink", "mtu", str(mtu))


@pytest.mark.parametrize("outer", ["4", "6"])
@pytest.mark.parametrize("cipher", ["AES-256-GCM", "AES-128-CBC"])
async def test_a_transfer_goes_on_with_shorter_segments(lab, start_server, wiretap: Wiretap, outer, cipher) -> None:
    server = start_server(cipher=cipher, outer=outer)
    size = 3_000_000
    log = EventLog()
    async with open_tunnel(server.profile_file(), on_event=log) as dialer:
        await download(dialer, 100_000)
        try:
            with trio.fail_after(60):
                stream = await dialer.open_tcp_stream(TUN_IPV4, 9)
                async with stream:
                    data = (PATTERN * (size // len(PATTERN) + 1))[:size]
                    await stream.send_all(data[: size // 3])
                    set_mtu(lab, NARROW)
                    await stream.send_all(data[size // 3 :])
                    await stream.send_eof()
                    assert int(b"".join([part async for part in stream])) == size
            await log.wait(TunnelChanged, 1, seconds=5)
            assert log.of(TunnelChanged)[-1].changed == ("mss_ipv4", "mss_ipv6")
            narrowed = dialer.tunnel_info.mss_ipv4
            assert narrowed is not None and narrowed < NARROW - 40
            wiretap.longest()
            await upload(dialer, 1_000_000)
            if outer == "4":
                sent, _ = wiretap.longest()
                # Whole, and no shorter than they must be.
                assert NARROW - 28 - 40 < sent <= NARROW - 28
            await download(dialer, 300_000)
            # What cannot be shorter goes in fragments outside of the tunnel.
            assert await udp_echo(dialer, bytes(1400))
            set_mtu(lab, 1500)
            await upload(dialer, 300_000)
            await log.wait(TunnelChanged, 2, seconds=5)
            info = dialer.tunnel_info
            assert info.mss_ipv4 is not None and info.mss_ipv4 > narrowed
        finally:
            set_mtu(lab, 1500)


async def test_mssfix_0_leaves_it_to_the_kernel(lab, start_server) -> None:
    server = start_server()
    log = EventLog()
    async with open_tunnel(server.profile_file(extra=("mssfix 0",)), on_event=log) as dialer:
        try:
            set_mtu(lab, NARROW)
            await upload(dialer, 1_000_000)
            assert not log.of(TunnelChanged)
            assert dialer.tunnel_info.mss_ipv4 is None
        finally:
            set_mtu(lab, 1500)
