"""Handshakes with the real server over a path that loses a fifth of all packets each way."""

from __future__ import annotations

import random

import pytest
import trio

from minivpn_trio import ConnectError, open_client
from minivpn_trio.config.model import Remote, TunnelConfig
from minivpn_trio.config.ovpn import load_config
from minivpn_trio.items import Burst
from minivpn_trio.networkio.dial import dial, resolve
from minivpn_trio.networkio.transport import Transport
from minivpn_trio.networkio.udp import UDPTransport

CLIENTS = 24
LOSS = 0.2


class LossyTransport(UDPTransport):
    """A UDP socket that forgets some of what it is given, and some of what arrives."""

    def __init__(self, inner: UDPTransport, seed: int) -> None:
        super().__init__(inner._sock, inner.peer)
        self._random = random.Random(seed)

    def _survivors(self, burst: Burst) -> Burst:
        return [datagram for datagram in burst if self._random.random() >= LOSS]

    async def receive(self) -> Burst:
        while True:
            burst = self._survivors(await super().receive())
            if burst:
                return burst

    def send_some(self, burst: Burst) -> int:
        super().send_some(self._survivors(burst))
        return len(burst)


def lossy(config: TunnelConfig, seed: int):
    async def connect(remote: Remote) -> Transport:
        (endpoint, *_) = await resolve(remote)
        transport = await dial(endpoint, config)
        assert isinstance(transport, UDPTransport)
        return LossyTransport(transport, seed)

    return connect


@pytest.mark.slow
@pytest.mark.parametrize("wrap", ["none", "tls-crypt"])
async def test_handshakes_over_a_lossy_path(start_server, wrap: str) -> None:
    """The C client needs 6.1 s in the median and 14.6 s at the ninth decile."""
    config = load_config(start_server(wrap=wrap).profile_file())
    times: list[float] = []
    failures: list[ConnectError] = []

    async def one(seed: int) -> None:
        began = trio.current_time()
        try:
            async with open_client(config, lossy(config, seed)):
                times.append(trio.current_time() - began)
        except ConnectError as exc:
            failures.append(exc)

    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            for seed in range(CLIENTS):
                nursery.start_soon(one, seed)
                await trio.sleep(0.02)
    assert not failures, f"{len(failures)} of {CLIENTS} did not connect: {failures[0]}"
    times.sort()
    median, decile = times[CLIENTS // 2], times[CLIENTS * 9 // 10]
    figures = f"median {median:.1f} s, ninth decile {decile:.1f} s, worst {times[-1]:.1f} s"
    print(f"\n{wrap}, {CLIENTS} handshakes: {figures}")
    assert median < 5.0, figures
    assert decile < 20.0, figures
