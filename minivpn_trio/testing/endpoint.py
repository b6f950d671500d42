"""One end of a session without Trio: all five cores, joined by plain calls.

The client proper joins its cores by channels and workers; here the same cores
run inside whatever loop the caller has, on whatever clock. The in-process
server is made of these, and a simulation joins two of them by a ``LinkModel``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..controlchannel.channel import ControlChannel
from ..datachannel.channel import DataChannel
from ..events import Event
from ..items import Burst, ExpectKey, OpenKey, RetireKey, Segment, SoftResetSeen, TunnelUp
from ..packet.ids import RandomBytes, Role
from ..packetmuxer.control_wrap import ControlWrap
from ..packetmuxer.muxer import PacketMuxer
from ..reliable.transport import ReliableTransport
from ..tlssession.machine import SessionMachine

__all__ = ["Endpoint"]

#: A session that renews its keys for ever reports for ever.
MAX_REPORTS = 1024


class Endpoint:
    """A client's or a server's end of one session.

    ``handle_datagrams``, ``send_packets`` and ``handle_timeout`` take input; ``take_datagrams``
    and ``take_packets`` give output; ``next_timeout`` says when to come back. ``make_session``
    gets the muxer, which knows the session ids, and returns a ``TlsSession`` or
    ``ServerTlsSession``. All times are seconds of the caller's clock.

    What ends the session (ConnectError, TunnelClosed and their kinds) is raised by the method
    that found out. Look at ``take_datagrams`` all the same: it may hold the TLS alert that tells
    the peer.

    ``adaptive``: see ``ReliableTransport``. The client proper is adaptive over UDP; an
    openvpn server is not.
    """

    def __init__(
        self,
        *,
        role: Role,
        wrap: ControlWrap,
        rng: RandomBytes,
        make_session: Callable[[PacketMuxer], SessionMachine],
        tls_timeout: float = 2.0,
        adaptive: bool = False,
    ) -> None:
        self.muxer: PacketMuxer = PacketMuxer(role=role, wrap=wrap, rng=rng)
        self.reliable: ReliableTransport = ReliableTransport(role=role, tls_timeout=tls_timeout, adaptive=adaptive)
        self.channel: ControlChannel = ControlChannel(role=role, max_payload=lambda: self.muxer.max_control_payload)
        self.data: DataChannel = DataChannel(role=role, rng=rng)
        self.session: SessionMachine = make_session(self.muxer)
        #: What the session reported, in order, the last ``MAX_REPORTS`` of each.
        self.ups: deque[TunnelUp] = deque(maxlen=MAX_REPORTS)
        self.events: deque[Event] = deque(maxlen=MAX_REPORTS)
        self._datagrams: Burst = []
        self._packets: Burst = []
        self._waiting: deque[Segment | OpenKey | ExpectKey | RetireKey] = deque()

    def start(self, now: float) -> None:
        """Begin: a client sends its hard reset, a server waits for one."""
        with self._pumping(now):
            self.session.start(now)

    def handle_datagrams(self, burst: Burst, now: float) -> None:
        """Take what arrived from the network. Hostile datagrams are counted and dropped."""
        demuxed = self.muxer.handle_datagrams(burst, now)
        if demuxed.control or demuxed.bound:
            with self._pumping(now):
                self.reliable.handle_packets(demuxed.control, now)
                if demuxed.bound:
                    self.session.handle_remote_bound(now)
                self._deliver(now)
        if demuxed.data:
            self._packets += self.data.decrypt_burst(demuxed.data, now)
            self._renew(now)
            closed = self.data.poll_closed()
            if closed is not None:
                raise closed

    def send_packets(self, burst: Burst, now: float) -> None:
        """Encrypt IP packets. Before there is a key they are dropped and counted."""
        self._datagrams += self.data.encrypt_burst(burst, now)
        self._renew(now)

    def handle_timeout(self, now: float) -> None:
        """Do what is due by ``now``. Calling it too early does nothing."""
        with self._pumping(now):
            due = self.session.next_timeout()
            if due is not None and due <= now:
                self.session.handle_timeout(now)
            due = self.data.next_timeout()
            if due is not None and due <= now:
                self._datagrams += self.data.handle_timeout(now)
            reason = self.data.poll_rekey()
            if reason is not None:
                self.session.handle_rekey_wanted(reason, now)

    def run(self, command: Callable[[], None], now: float) -> None:
        """Call ``command``, which makes the session say something, and carry that out."""
        with self._pumping(now):
            command()

    def next_timeout(self) -> float | None:
        """When ``handle_timeout`` is due; None: nothing is planned."""
        times = (self.session.next_timeout(), self.reliable.next_timeout(), self.data.next_timeout())
        return min((time for time in times if time is not None), default=None)

    def take_datagrams(self) -> Burst:
        """What is to be sent over the network."""
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def take_packets(self) -> Burst:
        """IP packets that came out of the tunnel."""
        packets, self._packets = self._packets, []
        return packets

    def goodbye(self, now: float) -> None:
        """Queue what tells the peer that we leave."""
        self.run(lambda: self.session.goodbye(now), now)
        self._datagrams += self.data.goodbye(now)

    def _renew(self, now: float) -> None:
        """Ask for a new data key if the current one has carried enough."""
        reason = self.data.poll_rekey()
        if reason is not None:
            self.run(lambda: self.session.handle_rekey_wanted(reason, now), now)

    def _deliver(self, now: float) -> None:
        for item in self.channel.handle_segments(self.reliable.take_delivered()):
            if isinstance(item, SoftResetSeen):
                self.session.handle_soft_reset(item.key_id, now)
            else:
                self.session.handle_tls_bytes(item.key_id, item.data, now)

    @contextmanager
    def _pumping(self, now: float) -> Iterator[None]:
        """Whatever the session is made to say in this block goes out, also where it ends with an error."""
        try:
            yield
        finally:
            self._pump(now)

    def _pump(self, now: float) -> None:
        """Carry what the session wants to say down to datagrams, and its reports out."""
        for renegotiation_key in self.session.poll_renegotiation_keys():
            self.muxer.install_renegotiation_key(renegotiation_key.exported)
        self._waiting += self.channel.segment(self.session.poll_outgoing())
        for key in self.session.poll_keys():
            self.data.install_key(key, now)
            # Those that came before it.
            self._packets += self.data.decrypt_burst([], now)
        for times in self.session.poll_keepalives():
            self.data.change_keepalive(times, now)
            # Those that came before it.
            self._packets += self.data.decrypt_burst([], now)
        self.ups.extend(self.session.poll_ups())
        self.events.extend(self.session.poll_events())
        # Commands always have room; a segment waits until the send window moves.
        while self._waiting and (self.reliable.can_submit or not isinstance(self._waiting[0], Segment)):
            self.reliable.submit(self._waiting.popleft(), now)
        packets = self.reliable.poll_transmit(now)
        if packets:
            self._datagrams += self.muxer.wrap_control(packets, now)
