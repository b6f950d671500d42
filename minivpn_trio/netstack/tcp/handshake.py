"""How a connection begins: SYNs and what they negotiate, and the segment size as it is now."""

from __future__ import annotations

from math import inf

from ..packets import ACK, SYN, TcpSegment
from ..sequence import MASK
from ..wire import SegmentBuilder
from .congestion import ALGORITHMS
from .state import TcpState
from .teardown import Teardown

__all__ = ["Handshake"]

#: A SYN that comes again is answered again, so often in seconds: whoever repeats one faster gains nothing.
_REPEAT_INTERVAL = 0.5

#: Without an MSS option (RFC 9293, 3.7.1); and the least that is believed (Linux, TCP_MIN_MSS).
_DEFAULT_MSS4, _DEFAULT_MSS6, _LEAST_MSS = 536, 1220, 88
_LARGEST_SCALE = 14
#: 2**6 s is beyond any number of retries that makes sense.
_LARGEST_BACKOFF = 6
_TIMESTAMP_SIZE = 12


class Handshake(Teardown):
    """The layer that knows the states before ESTABLISHED."""

    __slots__ = ()

    path_mss: int
    state: TcpState

    def connect(self, now: float) -> None:
        """Active open: SYN now, again after 1, 2, 4 ... s."""
        self.active = True
        self.state = TcpState.SYN_SENT
        self.receiver.flight = self._network.inbound.begin(self._share, self.receiver.mss, now)
        self.sender.nxt = self.iss + 1
        self._try_handshake(now)
        self._arm()

    def accept(self, syn: TcpSegment, now: float) -> None:
        """Passive open: ``syn`` arrived for a listener. SYN-ACK now."""
        self.state = TcpState.SYN_RECEIVED
        self.receiver.flight = self._network.inbound.begin(self._share, self.receiver.mss, now)
        self.sender.nxt = self.iss + 1
        self._take_syn(syn, now)
        self._try_handshake(now)
        self._arm()

    def _try_handshake(self, now: float) -> None:
        """SYN or SYN-ACK, and wait for an answer: twice as long as the last time."""
        self._send_syn(now)
        self._handshake_tries += 1
        wait = self._settings.rto_initial * 2 ** min(self._handshake_tries - 1, _LARGEST_BACKOFF)
        self._handshake_deadline = now + min(wait, self._settings.rto_max)

    def resume(self, now: float) -> None:
        """The tunnel is up again, perhaps another one: what it did not deliver is sent again now, as if for the first
        time, and how short the path was says nothing."""
        self.path.rtt = inf
        self.sender.rto.forget_shortest()
        self.sender.resume(now)
        if self._handshake_tries > 1 and self._handshake_deadline < inf:
            self._handshake_tries = 0
            self._handshake_repeated_at = now
            self._try_handshake(now)
        self._arm()

    def _repeat_syn_ack(self, now: float) -> None:
        """The peer's SYN again: our SYN-ACK was lost, or somebody repeats what he saw. Neither the number of tries
        nor the time of the next one depend on it."""
        if now - self._handshake_repeated_at >= _REPEAT_INTERVAL:
            self._handshake_repeated_at = now
            self._network.emit(self._model)

    def _send_syn(self, now: float) -> None:
        """SYN, or SYN-ACK in SYN-RECEIVED."""
        answer = self.state is TcpState.SYN_RECEIVED
        segment = self._bare(self.iss & MASK, self.receiver.nxt & MASK if answer else 0, SYN | ACK if answer else SYN)
        segment.window = self._first_window
        # What the peer's segments may be, not ours: how much the way there takes says little of the way here, and a
        # guess even less (RFC 6691).
        segment.mss = self._network.link_mss(self)
        if not answer or self._snd_scale or self.receiver.scale:
            segment.window_scale = self.receiver.scale
        segment.sack_permitted = self.sender.sack if answer else self._settings.sack
        if self._timestamps:
            segment.timestamps = (self._tsval(now), self._ts_recent if answer else 0)
        self._model = self._network.build(segment)
        self._network.emit(self._model)
        self._handshake_sent_at = now

    @property
    def _first_window(self) -> int:
        """What a SYN offers: its field is not scaled (RFC 7323, 2.2)."""
        return min(self.receiver.capacity, self.receiver.flight, 0xFFFF)

    def _take_syn(self, syn: TcpSegment, now: float) -> None:
        """Take the peer's initial number and options over."""
        receiver, sender = self.receiver, self.sender
        receiver.nxt = syn.seq + 1
        receiver.edge = receiver.nxt + self._first_window
        # The SYN counts: so there is something new to say at the end of the handshake.
        self._share.heard = syn.seq
        self._acks.last = receiver.nxt
        if syn.window_scale is None:
            receiver.scale = 0
            receiver.capacity_max = min(receiver.capacity_max, 0xFFFF)
            receiver.capacity = min(receiver.capacity, 0xFFFF)
            self._snd_scale = 0
        else:
            self._snd_scale = min(syn.window_scale, _LARGEST_SCALE)
        self._timestamps = self._timestamps and syn.timestamps is not None
        if syn.timestamps is not None:
            self._ts_recent, self._ts_recent_at = syn.timestamps[0], now
        sender.sack = syn.sack_permitted and self._settings.sack
        default = _DEFAULT_MSS4 if len(self.local[0]) == 4 else _DEFAULT_MSS6
        self._mss_limit = max(default if syn.mss is None else syn.mss, _LEAST_MSS)
        self._apply_mss()
        sender.window = sender.max_window = syn.window
        sender.wl1, sender.wl2 = syn.seq, self.iss

    def _establish(self, window: int, now: float) -> None:
        sender = self.sender
        if self._handshake_tries == 1 and self._handshake_repeated_at == -inf:
            sender.rto.sample(now - self._handshake_sent_at)
            self.path.rtt = min(self.path.rtt, sender.rto.min_rtt)
        sender.una = self.iss + 1
        self.state = TcpState.FIN_WAIT_1 if sender.fin else TcpState.ESTABLISHED
        self._handshake_deadline = inf
        self._builder = SegmentBuilder(self._model, timestamps=self._timestamps)
        self._model = b""
        sender.window = sender.max_window = window
        self._heard_at = now
        settings = self._settings
        if self.path_mss < self._network.link_mss(self):
            # That need not be for ever.
            known_until = self._network.probe_at(self)
            self._path_doubt = self._network.path_doubt(self)
            self._path_probe_at = max(known_until if known_until < inf else 0.0, now)
        if sender.rate_based and not sender.sack:
            # Only SACK tells what arrives while something is missing.
            self.congestion_name = "cubic"
            sender.set_congestion(ALGORITHMS["cubic"](sender.mss, settings.initial_window_segments))
        if settings.initial_ssthresh_segments is not None and sender.rto.srtt:
            # What the queues at the server hold, and what a fast path of this length does.
            path = int(settings.initial_ssthresh_rate / 8 * sender.rto.srtt)
            sender.congestion.threshold = settings.initial_ssthresh_segments * sender.mss + path
        if self.keepalive is not None:
            self._keepalive_deadline = now + self.keepalive
        self._changed = True
        self._network.established(self)

    def _apply_mss(self) -> None:
        options = _TIMESTAMP_SIZE if self._timestamps else 0
        mss = max(min(self._mss_limit, self.path_mss) - options, 1)
        # The peer's segments: it knows our link, and nothing of what we know of the path.
        link = min(self._mss_limit, self._network.link_mss(self)) - options
        self.receiver.mss = max(min(link, self.receiver.mss), 1)
        self.path.mss = max(self.path.mss, mss)
        if mss != self.sender.mss:
            fresh = self.sender.una == self.iss
            self.sender.set_mss(mss)
            if fresh:
                # The initial window counts segments of the size that was agreed on.
                settings = self._settings
                self.sender.set_congestion(ALGORITHMS[self.congestion_name](mss, settings.initial_window_segments))

    def set_path_mss(self, mss: int) -> None:
        """What the path takes has changed; bytes of payload and options. Nobody makes it less than what is believed
        of a peer, unless the link takes no more."""
        self.path_mss = max(mss, min(_LEAST_MSS, self._network.link_mss(self)))
        self._path_probe_at = inf
        self._path_untested = False
        self._path_doubt = self._path_probed = 0
        if self.sender.probe_size or self.sender.probe is not None:
            self.sender.forget_probe()
        if self.state is not TcpState.SYN_SENT:
            self._apply_mss()
