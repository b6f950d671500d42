"""What open_tun_dialer takes besides what open_client does."""

from __future__ import annotations

import pytest

from minivpn_trio import open_tun_dialer
from minivpn_trio.netstack.tcp.congestion import ALGORITHMS, Bbr
from minivpn_trio.testing import open_vpn_server


@pytest.mark.parametrize("name", [None, *ALGORITHMS])
async def test_congestion_control(name: str | None) -> None:
    options = {} if name is None else {"congestion": name}
    async with open_vpn_server() as server, open_tun_dialer(server.client_config(), **options) as dialer:
        connection = dialer.stack.connect_tcp((b"\x0a\x08\0\1", 9), 0.0)
        expected = Bbr if name is None else ALGORITHMS[name]
        assert type(connection.sender.congestion) is expected


async def test_an_unknown_congestion_control_is_said_before_anything_is_dialled() -> None:
    with pytest.raises(ValueError, match="bbr, cubic, newreno"):
        async with open_tun_dialer("no-such-file.ovpn", congestion="vegas"):
            pytest.fail("there is no such thing")
