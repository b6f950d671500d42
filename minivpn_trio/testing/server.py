"""An OpenVPN server without Trio: many clients, addresses for them, and a TCP/IP stack behind it all.

``ServerCore`` is sans-IO like everything it is made of: datagrams in and out
by peer, IP packets to and from its own stack. ``vpn_server.py`` gives it
sockets or memory links.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from ..config.model import DEFAULT_DATA_CIPHERS, ControlWrapKind, TunnelConfig
from ..errors import DropReason, MiniVPNError
from ..items import Burst
from ..packet.ids import RandomBytes, Role
from ..packet.opcodes import OPCODE_SHIFT, Opcode
from ..packetmuxer.control_wrap import make_control_wrap
from ..packetmuxer.muxer import PacketMuxer
from ..tlssession.engine import TLSContext
from ..tlssession.server import ServerPolicy, ServerTlsSession
from .endpoint import Endpoint
from .pki import CertificateAuthority, Identity

__all__ = ["ServerCore", "ServerSettings"]

#: More clients than this at once are not answered.
MAX_CLIENTS = 1024
HARD_RESETS = frozenset(
    opcode << OPCODE_SHIFT for opcode in (Opcode.CONTROL_HARD_RESET_CLIENT_V2, Opcode.CONTROL_HARD_RESET_CLIENT_V3)
)


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How the server behaves. The defaults suit a test that just needs a tunnel.

    ``users`` makes it ask for credentials; ``policy`` is the starting point
    for what each client gets (addresses, peer-id and keepalive are added).
    """

    ca: CertificateAuthority = field(default_factory=CertificateAuthority)
    network: IPv4Network = IPv4Network("10.8.0.0/24")
    data_ciphers: tuple[str, ...] = DEFAULT_DATA_CIPHERS
    auth: str = "SHA1"
    control_wrap: ControlWrapKind = "none"
    #: The static key of tls-auth or tls-crypt; both sides use it, tls-auth with key-direction 0 here, 1 there.
    control_wrap_key: bytes | None = field(default=None, repr=False)
    compression: str = "none"
    fragment: int | None = None
    topology: str = "subnet"
    users: Mapping[str, str] | None = field(default=None, repr=False)
    #: Further options to push, such as ``dhcp-option DOMAIN example``.
    push: tuple[str, ...] = ()
    #: Seconds, as ``keepalive``: pushed to clients, and kept by the server with twice the restart time.
    ping: int = 10
    ping_restart: int = 60
    reneg_sec: float = 0.0
    tls_timeout: float = 2.0
    hand_window: float = 60.0
    tun_mtu: int = 1500
    policy: ServerPolicy = field(default_factory=ServerPolicy)


class Client:
    """What the server knows of one client."""

    def __init__(self, peer: Hashable, endpoint: Endpoint, session: ServerTlsSession, address: IPv4Address) -> None:
        self.peer = peer
        self.endpoint = endpoint
        self.session = session
        #: Its address inside the tunnel.
        self.address = address


class ServerCore:
    """The server. ``deliver`` is called with the IP packets that clients send to anybody but each other."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        rng: RandomBytes,
        deliver: Callable[[Burst], None],
        unix_time: Callable[[], float],
        is_stream: bool = False,
    ) -> None:
        self.settings = settings
        self._rng = rng
        self._deliver = deliver
        self._unix_time = unix_time
        self._is_stream = is_stream
        self._identity: Identity = settings.ca.issue_server()
        self._config = self._server_config()
        self._context = TLSContext(self._config, Role.SERVER, client_certificate=settings.policy.client_certificate)
        hosts = list(settings.network.hosts())
        #: The server's own address inside the tunnel, the first of the network.
        self.address = hosts[0]
        self._free = hosts[:0:-1]
        self.clients: dict[Hashable, Client] = {}
        self._by_address: dict[bytes, Client] = {}
        self._output: list[tuple[Hashable, Burst]] = []
        self.drops: Counter[DropReason] = Counter()
        #: Why sessions ended, newest last, the last 64.
        self.endings: list[MiniVPNError] = []

    def _server_config(self) -> TunnelConfig:
        settings = self.settings
        return TunnelConfig(
            remotes=(),
            ca=settings.ca.cert,
            cert=self._identity.cert,
            key=self._identity.key,
            control_wrap=settings.control_wrap,
            control_wrap_key=settings.control_wrap_key,
            key_direction=0 if settings.control_wrap == "tls-auth" else None,
            data_ciphers=settings.data_ciphers,
            auth=settings.auth,
            compression=settings.compression,
            fragment=settings.fragment,
            tls_timeout=settings.tls_timeout,
            hand_window=settings.hand_window,
            tun_mtu=settings.tun_mtu,
        )

    def client_config(self) -> TunnelConfig:
        """A TunnelConfig for a new client of this server, with a fresh certificate; ``remotes`` is empty."""
        settings = self.settings
        identity = settings.ca.issue_client() if settings.policy.client_certificate != "none" else None
        return TunnelConfig(
            remotes=(),
            ca=settings.ca.cert,
            cert=identity.cert if identity else None,
            key=identity.key if identity else None,
            remote_cert_tls=True,
            control_wrap=settings.control_wrap,
            control_wrap_key=settings.control_wrap_key,
            key_direction=1 if settings.control_wrap == "tls-auth" else None,
            data_ciphers=settings.data_ciphers,
            auth=settings.auth,
            compression=settings.compression,
            fragment=settings.fragment,
            needs_credentials=settings.users is not None,
            reneg_sec=0.0,
            tls_timeout=settings.tls_timeout,
            hand_window=settings.hand_window,
            tun_mtu=settings.tun_mtu,
        )

    # input

    def handle_datagrams(self, peer: Hashable, burst: Burst, now: float) -> None:
        """Take datagrams of ``peer``. A hard reset of somebody new makes a session; never raises for bad input."""
        client = self.clients.get(peer)
        if client is None:
            client = self._admit(peer, burst, now)
            if client is None:
                self.drops[DropReason.BAD_SESSION_ID] += len(burst)
                return
        self._step(client, lambda endpoint: endpoint.handle_datagrams(burst, now))
        packets = client.endpoint.take_packets()
        if packets:
            self._route(client, packets, now)

    def send_packets(self, burst: Burst, now: float) -> None:
        """Send IP packets to the clients that they are addressed to."""
        by_client: dict[Client, Burst] = {}
        for packet in burst:
            client = self._by_address.get(bytes(packet[16:20]))
            if client is None:
                self.drops[DropReason.BAD_ADDRESS] += 1
            else:
                by_client.setdefault(client, []).append(packet)
        for client, packets in by_client.items():
            client.endpoint.send_packets(packets, now)
            self._collect(client)

    def handle_timeout(self, now: float) -> None:
        """Do what is due by ``now`` for every client."""
        for client in list(self.clients.values()):
            due = client.endpoint.next_timeout()
            if due is not None and due <= now:
                self._step(client, lambda endpoint: endpoint.handle_timeout(now))

    def next_timeout(self) -> float | None:
        """When ``handle_timeout`` is due; None: nothing is planned."""
        times = (client.endpoint.next_timeout() for client in self.clients.values())
        return min((time for time in times if time is not None), default=None)

    # output and commands

    def take_datagrams(self) -> list[tuple[Hashable, Burst]]:
        """What is to be sent, by peer."""
        output, self._output = self._output, []
        return output

    def send_message(self, client: Client, text: str, now: float) -> None:
        """Send a control message such as ``RESTART``."""
        self._step(client, lambda endpoint: client.session.send_message(text, now))
        self._step(client, lambda endpoint: endpoint.handle_timeout(now))

    def forget(self, peer: Hashable) -> None:
        """The peer's transport is gone: so is its session. Unknown peers are fine."""
        client = self.clients.pop(peer, None)
        if client is not None:
            self._by_address.pop(client.address.packed, None)
            self._free.append(client.address)

    # inside

    def _admit(self, peer: Hashable, burst: Burst, now: float) -> Client | None:
        if not any(datagram and datagram[0] in HARD_RESETS for datagram in burst):
            return None
        if len(self.clients) >= MAX_CLIENTS or not self._free:
            return None
        address = self._free.pop()
        policy = self._policy(address, len(self.clients))
        sessions: list[ServerTlsSession] = []

        def make_session(muxer: PacketMuxer) -> ServerTlsSession:
            sessions.append(
                ServerTlsSession(
                    config=self._config,
                    policy=policy,
                    rng=self._rng,
                    now=now,
                    local_session_id=lambda: muxer.local_session_id,
                    remote_session_id=lambda: muxer.remote_session_id,
                    transport="tcp" if self._is_stream else "udp",
                    context=self._context,
                    unix_time=self._unix_time,
                )
            )
            return sessions[0]

        endpoint = Endpoint(
            role=Role.SERVER,
            wrap=make_control_wrap(self._config, Role.SERVER, unix_time=self._unix_time),
            rng=self._rng,
            make_session=make_session,
            tls_timeout=self.settings.tls_timeout,
        )
        client = Client(peer, endpoint, sessions[0], address)
        self.clients[peer] = client
        self._by_address[address.packed] = client
        endpoint.start(now)
        return client

    def _policy(self, address: IPv4Address, peer_id: int) -> ServerPolicy:
        settings = self.settings
        if settings.topology == "subnet":
            ifconfig = f"ifconfig {address} {settings.network.netmask}"
        else:
            ifconfig = f"ifconfig {address} {self.address}"
        push = (
            f"route-gateway {self.address}",
            f"topology {settings.topology}",
            f"ping {settings.ping}",
            f"ping-restart {settings.ping_restart}",
            ifconfig,
            f"dhcp-option DNS {self.address}",
            *settings.push,
        )
        users = settings.users
        return replace(
            settings.policy,
            push=(*settings.policy.push, *push),
            data_ciphers=settings.data_ciphers,
            peer_id=None if settings.policy.peer_id is None else peer_id,
            reneg_sec=settings.reneg_sec,
            ping=settings.ping,
            ping_restart=2 * settings.ping_restart,
            authenticate=settings.policy.authenticate
            or (None if users is None else lambda name, password: users.get(name) == password),
        )

    def _step(self, client: Client, action: Callable[[Endpoint], None]) -> None:
        """Do something with a client's endpoint; a verdict ends its session."""
        try:
            action(client.endpoint)
        except MiniVPNError as exc:
            self.endings = [*self.endings[-63:], exc]
            self._collect(client)
            self.forget(client.peer)
        else:
            self._collect(client)

    def _collect(self, client: Client) -> None:
        datagrams = client.endpoint.take_datagrams()
        if datagrams:
            self._output.append((client.peer, datagrams))

    def _route(self, sender: Client, packets: Iterable[bytes], now: float) -> None:
        """Clients reach each other and the server's own stack, with their own source address only."""
        source = sender.address.packed
        own: Burst = []
        for packet in packets:
            if len(packet) < 20 or packet[0] >> 4 != 4 or packet[12:16] != source:
                self.drops[DropReason.BAD_ADDRESS] += 1
            elif packet[16:20] in self._by_address:
                self.send_packets([packet], now)
            else:
                own.append(packet)
        if own:
            self._deliver(own)
