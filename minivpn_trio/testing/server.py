"""An OpenVPN server without Trio: many clients, addresses for them, and a TCP/IP stack behind it all.

``ServerCore`` is sans-IO like everything it is made of: datagrams in and out
by peer, IP packets to and from its own stack. ``vpn_server.py`` gives it
sockets or memory links.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import count

from ..config.model import TunnelConfig
from ..errors import DropReason, MiniVPNError
from ..items import Burst
from ..packet.ids import RandomBytes, Role
from ..packet.opcodes import OPCODE_SHIFT, Opcode
from ..packetmuxer.control_wrap import make_control_wrap
from ..packetmuxer.muxer import DATA_FIRST_BYTES, PacketMuxer
from ..tlssession.openssl import TLSContext
from ..tlssession.server import ServerTlsSession
from .endpoint import Endpoint
from .pki import Identity
from .server_settings import ServerSettings, client_config, policy_for, server_config

__all__ = ["ServerCore"]

#: More clients than this at once are not answered.
MAX_CLIENTS = 1024
HARD_RESETS = frozenset(
    opcode << OPCODE_SHIFT for opcode in (Opcode.CONTROL_HARD_RESET_CLIENT_V2, Opcode.CONTROL_HARD_RESET_CLIENT_V3)
)


class Client:
    """What the server knows of one client."""

    def __init__(self, peer: Hashable, endpoint: Endpoint, session: ServerTlsSession, address: IPv4Address) -> None:
        self.peer = peer
        self.endpoint = endpoint
        self.session = session
        #: Its address inside the tunnel.
        self.address = address
        #: The common name of its certificate; None before TLS is up, or where it has none.
        self.common_name: str | None = None


class ServerCore:
    """The server. ``deliver`` is called with the IP packets that clients send to anybody but each other.

    A peer is whatever names the other end of a transport: a socket address, an object. All times
    are seconds of the caller's clock.
    """

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
        self._config = server_config(settings, self._identity)
        self._context = TLSContext(self._config, Role.SERVER, client_certificate=settings.policy.client_certificate)
        hosts = list(settings.network.hosts())
        #: The server's own address inside the tunnel, the first of the network.
        self.address: IPv4Address = hosts[0]
        self._free = hosts[:0:-1]
        self.clients: dict[Hashable, Client] = {}
        # Who began a new session where there is one already: takes its place once it authenticated.
        self._newcomers: dict[Hashable, Client] = {}
        self._by_address: dict[bytes, Client] = {}
        self._serials = count(1)
        self._output: list[tuple[Hashable, Burst]] = []
        self.drops: Counter[DropReason] = Counter()
        #: Why sessions ended, newest last, the last 64.
        self.endings: list[MiniVPNError] = []
        #: Called with the peer of each session that ended, after its last datagrams were collected. Must not raise.
        self.on_ended: Callable[[Hashable], object] = lambda _: None

    def client_config(self) -> TunnelConfig:
        """A TunnelConfig for a new client of this server, with a fresh certificate; ``remotes`` is empty."""
        return client_config(self.settings, f"client-{next(self._serials)}", rng=self._rng)

    # input

    def handle_datagrams(self, peer: Hashable, burst: Burst, now: float) -> None:
        """Take datagrams of ``peer``. A hard reset of somebody new makes a session; never raises for bad input."""
        client = self.clients.get(peer)
        if client is None:
            client = self._admit(peer, burst, now)
            if client is None:
                return
            self.clients[peer] = client
        elif not is_data(burst):
            burst = self._sort_out_newcomer(client, burst, now)
        if burst:
            self._feed(client, burst, now)

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
        for client in [*self.clients.values(), *self._newcomers.values()]:
            due = client.endpoint.next_timeout()
            if due is not None and due <= now:
                self._step(client, lambda endpoint: endpoint.handle_timeout(now))

    def next_timeout(self) -> float | None:
        """When ``handle_timeout`` is due; None: nothing is planned."""
        clients = (*self.clients.values(), *self._newcomers.values())
        times = (client.endpoint.next_timeout() for client in clients)
        return min((time for time in times if time is not None), default=None)

    # output and commands

    def take_datagrams(self) -> list[tuple[Hashable, Burst]]:
        """What is to be sent, by peer."""
        output, self._output = self._output, []
        return output

    def send_message(self, client: Client, text: str, now: float) -> None:
        """Send a control message such as ``RESTART``."""
        self._step(client, lambda endpoint: endpoint.run(lambda: client.session.send_message(text, now), now))

    def push_update(self, client: Client, options: Sequence[str], now: float) -> bool:
        """Change options of a client's live tunnel (PUSH_UPDATE); its new address, if it gets one, is known here too.

        False: the client was not told, since it has no tunnel yet or does not understand this. ValueError: the
        address is another client's.
        """
        wanted = next((option.split()[1] for option in options if option.startswith("ifconfig ")), None)
        address = client.address if wanted is None else IPv4Address(wanted)
        if self._by_address.get(address.packed, client) is not client or address == self.address:
            raise ValueError(f"{address} is in use")
        told: list[bool] = []
        self._step(
            client,
            lambda endpoint: endpoint.run(lambda: told.append(client.session.push_update(options, now)), now),
        )
        if told == [True] and address != client.address:
            del self._by_address[client.address.packed]
            self._free.append(client.address)
            if address in self._free:
                self._free.remove(address)
            client.address = address
            self._by_address[address.packed] = client
        return told == [True]

    def goodbye(self, now: float) -> None:
        """Tell every client that the server leaves, and forget them all."""
        for client in list(self.clients.values()):
            self._step(client, lambda endpoint: endpoint.goodbye(now))
            self.forget(client.peer)

    def forget(self, peer: Hashable) -> None:
        """The peer's transport is gone: so is its session. Unknown peers are fine."""
        for clients in (self._newcomers, self.clients):
            client = clients.get(peer)
            if client is not None:
                self._remove(client)

    # inside

    def _feed(self, client: Client, burst: Burst, now: float) -> None:
        self._step(client, lambda endpoint: endpoint.handle_datagrams(burst, now))
        if client.endpoint.muxer.remote_session_id is None:
            # What looked like a reset was none, or failed to authenticate: nothing began.
            self.drops[DropReason.BAD_SESSION_ID] += len(burst)
            self._remove(client)
            return
        packets = client.endpoint.take_packets()
        if packets:
            self._route(client, packets, now)

    def _sort_out_newcomer(self, client: Client, burst: Burst, now: float) -> Burst:
        """Give a new session of the same peer, which a client that was restarted begins, what is its own.

        The session there is goes on until the new one authenticated: anybody can forge a reset.
        """
        known = client.endpoint.muxer.remote_session_id
        newcomer = self._newcomers.get(client.peer)
        others = [datagram for datagram in burst if not is_data([datagram]) and session_id(datagram) != known]
        if not others:
            return burst
        named = newcomer.endpoint.muxer.remote_session_id if newcomer is not None else None
        resets = [datagram for datagram in others if datagram[0] in HARD_RESETS and session_id(datagram) != named]
        if resets:
            if newcomer is not None:
                self._remove(newcomer)
            newcomer = self._admit(client.peer, resets, now)
            if newcomer is not None:
                self._newcomers[client.peer] = newcomer
        if newcomer is None:
            return burst
        self._feed(newcomer, others, now)
        return [datagram for datagram in burst if datagram not in others]

    def _admit(self, peer: Hashable, burst: Burst, now: float) -> Client | None:
        """Begin a session with ``peer``, if ``burst`` asks for one."""
        if not any(datagram and datagram[0] in HARD_RESETS for datagram in burst):
            self.drops[DropReason.BAD_SESSION_ID] += len(burst)
            return None
        if len(self.clients) + len(self._newcomers) >= MAX_CLIENTS or not self._free:
            self.drops[DropReason.LIMIT] += len(burst)
            return None
        address = self._free.pop()
        policy = policy_for(self.settings, address, self.address)
        client: Client | None = None

        def authenticate(name: str, password: str) -> bool | str:
            verdict = True if check is None else check(name, password)
            if verdict is True and client is not None:
                self._settle(client)
            return verdict

        check = policy.authenticate
        policy = replace(policy, authenticate=authenticate)
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
            wrap=make_control_wrap(
                self._config, Role.SERVER, unix_time=self._unix_time, force_cookie=self.settings.force_cookie
            ),
            rng=self._rng,
            make_session=make_session,
            tls_timeout=self.settings.tls_timeout,
        )
        client = Client(peer, endpoint, sessions[0], address)
        self._by_address[address.packed] = client
        endpoint.start(now)
        return client

    def _settle(self, client: Client) -> None:
        """``client`` has authenticated: it takes the place of its former self.

        Called again when a key is renewed, when there is nothing left to do.
        """
        client.common_name = client.session.common_name
        former = self.clients.get(client.peer)
        if not self.settings.duplicate_cn and client.common_name is not None and client.session.negotiating_first_key:
            namesakes = [c for c in self.clients.values() if c.common_name == client.common_name and c is not client]
            for namesake in namesakes:
                self._take_over(client, namesake)
        if former is not None and former is not client and former.peer in self.clients:
            self._remove(former)
        if self._newcomers.get(client.peer) is client:
            del self._newcomers[client.peer]
            self.clients[client.peer] = client

    def _take_over(self, client: Client, former: Client) -> None:
        """Give ``client`` the address of ``former``, which is gone."""
        self._remove(former)
        if former.peer != client.peer:
            self.on_ended(former.peer)
        self._free.remove(former.address)
        del self._by_address[client.address.packed]
        self._free.append(client.address)
        client.address = former.address
        self._by_address[client.address.packed] = client
        policy = policy_for(self.settings, client.address, self.address)
        client.session.policy = replace(
            client.session.policy, push=policy.push, peer_id=policy.peer_id
        )

    def _remove(self, client: Client) -> None:
        """Forget ``client``; its address is the next to be given away."""
        for clients in (self.clients, self._newcomers):
            if clients.get(client.peer) is client:
                del clients[client.peer]
        if self._by_address.get(client.address.packed) is client:
            del self._by_address[client.address.packed]
            self._free.append(client.address)

    def _step(self, client: Client, action: Callable[[Endpoint], None]) -> None:
        """Do something with a client's endpoint; a verdict ends its session."""
        try:
            action(client.endpoint)
        except MiniVPNError as exc:
            self.endings = [*self.endings[-63:], exc]
            self._collect(client)
            replaced = self.clients.get(client.peer) is not client
            self._remove(client)
            if not replaced:
                self.on_ended(client.peer)
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


def is_data(burst: Burst) -> bool:
    """Whether every datagram is a data packet."""
    return all(datagram and datagram[0] in DATA_FIRST_BYTES for datagram in burst)


def session_id(datagram: bytes) -> bytes:
    """The session id that a control packet claims to come from."""
    return datagram[1:9]
