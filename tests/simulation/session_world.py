"""A client's endpoint and the in-process server, joined by two lossy links, on a clock that only we turn."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from time import time as unix_time

from minivpn_trio.config.model import TunnelConfig
from minivpn_trio.errors import MiniVPNError
from minivpn_trio.events import SessionState
from minivpn_trio.items import Burst
from minivpn_trio.packet.ids import Role
from minivpn_trio.packetmuxer.control_wrap import make_control_wrap
from minivpn_trio.testing import CertificateAuthority, Endpoint, LinkConditions, LinkModel, ServerCore, ServerSettings
from minivpn_trio.testing.server import Client
from minivpn_trio.tlssession.session import TlsSession

PEER = "the client"
STATIC_KEY = (
    b"-----BEGIN OpenVPN Static key V1-----\n"
    + b"\n".join(bytes(range(row * 16, row * 16 + 16)).hex().encode() for row in range(16))
    + b"\n-----END OpenVPN Static key V1-----\n"
)


@cache
def authority() -> CertificateAuthority:
    return CertificateAuthority()


@cache
def certified(settings_key: tuple[tuple[str, object], ...]) -> TunnelConfig:
    """A client's configuration; certificates are made once, which is slower than a whole handshake."""
    settings = ServerSettings(ca=authority(), **dict(settings_key))  # type: ignore[arg-type]
    server = ServerCore(settings, rng=random.Random(0).randbytes, deliver=lambda _: None, unix_time=unix_time)
    return server.client_config()


def ip_packet(source: bytes, destination: bytes, number: int, size: int = 64) -> bytes:
    """Something that looks like an IPv4 packet to whoever routes it; UDP, no checksums."""
    head = b"\x45\x00" + size.to_bytes(2, "big") + number.to_bytes(4, "big") + b"\x40\x11\x00\x00"
    return (head + source + destination).ljust(size, b"\x2a")


class SessionWorld:
    """Both ends and what is between them. ``run_until`` turns the clock."""

    def __init__(
        self,
        seed: int,
        up: LinkConditions,
        down: LinkConditions | None = None,
        *,
        adaptive: bool = True,
        client_options: dict[str, object] | None = None,
        **settings: object,
    ) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self.up = LinkModel(up, 2 * seed)
        self.down = LinkModel(down or up, 2 * seed + 1)
        options: dict[str, object] = {"ping": 0, "ping_restart": 0, **settings}
        if options.get("control_wrap", "none") != "none":
            options["control_wrap_key"] = STATIC_KEY
        self.config = replace(certified(tuple(sorted(options.items()))), **(client_options or {}))  # type: ignore[arg-type]
        self.at_server: Burst = []
        self.at_client: Burst = []
        self.server = ServerCore(
            ServerSettings(ca=authority(), **options),  # type: ignore[arg-type]
            rng=self.rng.randbytes,
            deliver=self.at_server.extend,
            unix_time=unix_time,
        )
        self.sessions: list[TlsSession] = []

        def make_session(muxer: object) -> TlsSession:
            session = TlsSession(
                config=self.config,
                rng=self.rng.randbytes,
                now=self.now,
                local_session_id=lambda: muxer.local_session_id,  # type: ignore[attr-defined]
                remote_session_id=lambda: muxer.remote_session_id,  # type: ignore[attr-defined]
                unix_time=unix_time,
            )
            self.sessions.append(session)
            return session

        self.client = Endpoint(
            role=Role.CLIENT,
            wrap=make_control_wrap(self.config, Role.CLIENT, unix_time=unix_time),
            rng=self.rng.randbytes,
            make_session=make_session,
            tls_timeout=self.config.tls_timeout,
            adaptive=adaptive,
        )
        #: What the client's end raised.
        self.verdict: MiniVPNError | None = None
        #: Virtual seconds at which the client reported that the tunnel is up.
        self.up_at: float | None = None
        self.client.start(self.now)

    @property
    def session(self) -> TlsSession:
        return self.sessions[-1]

    @property
    def at_the_server(self) -> Client | None:
        """What the server knows of the client."""
        return self.server.clients.get(PEER)

    @property
    def both_up(self) -> bool:
        peer = self.at_the_server
        return (
            self.up_at is not None and peer is not None and peer.session.state is SessionState.GENERATED_KEYS
            and peer.endpoint.data.live_keys > 0
        )  # fmt: skip

    def step(self) -> bool:
        """Move what is due and turn the clock to whatever comes next; False: nothing will."""
        self._exchange()
        times = [
            self.up.next_timeout(), self.down.next_timeout(), self.server.next_timeout(),
            self.client.next_timeout() if self.verdict is None else None,
        ]  # fmt: skip
        due = min((time for time in times if time is not None), default=None)
        if due is None:
            return False
        self.now = max(self.now, due)
        return True

    def _exchange(self) -> None:
        now = self.now
        while burst := self.up.deliver(now):
            self.server.handle_datagrams(PEER, burst, now)
        self.server.handle_timeout(now)
        try:
            while burst := self.down.deliver(now):
                if self.verdict is None:
                    self.client.handle_datagrams(burst, now)
            if self.verdict is None:
                self.client.handle_timeout(now)
        except MiniVPNError as exc:
            self.verdict = exc
        self.at_client += self.client.take_packets()
        if self.up_at is None and self.client.ups:
            self.up_at = now
        for datagram in self.client.take_datagrams():
            self.up.send(datagram, now)
        for _, burst in self.server.take_datagrams():
            for datagram in burst:
                self.down.send(datagram, now)

    def run_until(self, done: Callable[[], bool], limit: float = 300.0) -> bool:
        """Go on until ``done``, at most to virtual second ``limit``. Whether it is done."""
        steps = 0
        while not done():
            steps += 1
            assert steps < 200_000, "the clock stands still"
            if self.verdict is not None or self.now > limit or not self.step():
                return done()
        return True

    def run_for(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        end = self.now + seconds
        while self.now < end:
            before = self.now
            if not self.step() or self.now >= end:
                self.now = end
                self._exchange()
                return
            assert self.now >= before

    def heal(self) -> None:
        """From now on the link is perfect."""
        self.up.conditions = self.down.conditions = LinkConditions(delay=0.02)

    def send_from_client(self, count: int, first: int = 0) -> list[bytes]:
        assert self.at_the_server is not None
        source, destination = self.at_the_server.address.packed, self.server.address.packed
        packets = [ip_packet(source, destination, first + n) for n in range(count)]
        self.client.send_packets(packets, self.now)
        return packets

    def send_from_server(self, count: int, first: int = 0) -> list[bytes]:
        assert self.at_the_server is not None
        source, destination = self.server.address.packed, self.at_the_server.address.packed
        packets = [ip_packet(source, destination, first + n) for n in range(count)]
        self.server.send_packets(packets, self.now)
        return packets
