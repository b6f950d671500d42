"""Which interface the tunnel's own packets leave by, in a namespace that has a rule for marked ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from minivpn_trio.errors import ConnectError, TransportError
from tests.interop.exchanges import echo, open_tunnel
from tests.interop.lab.lab import Lab

MARK = 0x9A000007


@pytest.fixture
def marked_is_prohibited(lab: Lab) -> Iterator[None]:
    """Packets with MARK go nowhere."""
    rule = ("fwmark", hex(MARK), "prohibit")
    lab.our_namespace.run("ip", "rule", "add", *rule)
    yield
    lab.our_namespace.run("ip", "rule", "del", *rule)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_mark(start_server, marked_is_prohibited, transport: str) -> None:
    """The kernel sees it: by its rule one mark goes nowhere, another one does."""
    server = start_server(transport=transport)
    with pytest.raises(TransportError):
        async with open_tunnel(server.profile_file(extra=(f"mark {MARK}",)), seconds=5):
            raise AssertionError("never")
    async with open_tunnel(server.profile_file(extra=(f"mark {MARK - 1}",)), seconds=5) as dialer:
        await echo(dialer, 2000)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_bind_dev(start_server, transport: str) -> None:
    """By the interface that leads there; not by one that leads elsewhere, although the routes know a way."""
    server = start_server(transport=transport)
    async with open_tunnel(server.profile_file(extra=("bind-dev uplink",)), seconds=5) as dialer:
        await echo(dialer, 2000)
    with pytest.raises(ConnectError):
        async with open_tunnel(server.profile_file(extra=("bind-dev lo", "connect-timeout 1")), seconds=5):
            raise AssertionError("never")
    with pytest.raises(TransportError, match="bind-dev nosuch0: No such device"):
        async with open_tunnel(server.profile_file(extra=("bind-dev nosuch0",)), seconds=5):
            raise AssertionError("never")
