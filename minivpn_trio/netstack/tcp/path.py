"""What the path does to a connection: ICMP errors, the size of segments it takes, and finding that out without ICMP.

Packet-too-big messages lower the size at once (RFC 1191). Where they do not come, timeouts in a row with full
segments make a black hole likely: smaller sizes are tried. When one gets through it may have been the size, or
an outage that is over, or plain loss; so full segments are tried at once, and only when several in a row did not
arrive, while smaller ones did, is the smaller size remembered for the destination as a fact.

A lowered size is tried upwards again every ten minutes, by single larger segments whose loss
is no sign of congestion (RFC 4821): one as large as the link takes; if it is lost, one of the size that a router
named for it, or halfway to what is known to pass; and so on, until that is near. A new connection that begins with a
size that others found does so when that is forgotten, or at once if it was a guess.
"""

from __future__ import annotations

from ..sequence import unwrap
from .handshake import Handshake
from .state import HANDSHAKE

__all__ = ["Path"]

#: Seconds from one step of a search to the next.
_NEXT_PROBE = 10.0
#: A search ends where less than so many bytes are to be gained.
_NEAR = 32


class Path(Handshake):
    """The layer that knows sizes and soft errors."""

    __slots__ = ()

    def is_in_flight(self, wire_seq: int) -> bool:
        """Whether an ICMP error that quotes this sequence number may be about a segment of ours (RFC 5927, 4)."""
        sender = self.sender
        return sender.una <= unwrap(wire_seq, sender.una) < sender.nxt

    def handle_icmp_error(self, error: OSError) -> None:
        """An ICMP error about a segment in flight: fatal before the handshake is complete, a hint later (RFC 1122,
        4.2.3.9)."""
        if self.state in HANDSHAKE:
            self._end(error)
        else:
            self._soft_error = error

    def handle_path_mss(self, mss: int, now: float) -> None:
        """A segment to this host was too big: smaller ones from now on, and what is larger and in flight again (RFC
        1191). Does not send."""
        if mss >= self.path_mss:
            # About a probe: it says what to try next, and is proof that the rest does not fit.
            self._path_hint = mss
            if self._path_probed > mss:
                self._path_doubt, self._path_refused = 0, self._path_probed
            return
        self._shrink(mss, now)

    def _shrink(self, mss: int, now: float) -> None:
        sender, limit = self.sender, self._mss_limit
        if self._builder is not None:
            # Not a sign of congestion. What fits is on its way.
            options = min(self.path_mss, limit) - sender.mss
            sender.board.lose_larger(max(min(mss, limit) - options, 1))
        self.set_path_mss(mss)
        self._path_refused = 0
        self._path_probe_at = now + self._settings.path_probe_interval

    def _suspect_black_hole(self, now: float) -> None:
        """The timer has gone off: if it was not the first time, and the segment a full one, try a smaller size."""
        sender = self.sender
        first = sender.board.first
        if sender.retries < self._settings.black_hole_retries or first is None or first.end - first.start < sender.mss:
            return
        if not sender.window:
            # The peer throws away what comes, of whatever size.
            return
        for mss in self._settings.black_hole_mss:
            if mss < min(self.path_mss, self._mss_limit):
                former, hint, refused = self.path_mss, self._path_hint, self._path_refused
                if not self._path_untested and not self._path_doubt:
                    # If it was an outage, what passed before it does so after it. What was a guess of ours stays one,
                    # with the hint that it began with.
                    link = self._network.link_mss(self)
                    hint, refused = (former, link) if former < link else (0, 0)
                self._shrink(mss, now)
                self._path_untested = True
                self._path_hint, self._path_refused = hint, refused
                return

    def _probe_path(self, now: float) -> None:
        """Time to see whether the path takes more: the next full segment will be a larger one."""
        sender, interval = self.sender, self._settings.path_probe_interval
        size = min(self.path_mss, self._mss_limit)
        most = min(self._network.link_mss(self), self._mss_limit)
        self._path_probe_at = now + interval
        if size >= most or sender.probe is not None or sender.probe_size:
            # Enough, or under way, or waiting for data to be put in.
            return
        if self._path_probed:
            # The last one did not get through, and nothing was acknowledged since.
            self._refuse_probe()
        wanted, refused = most, self._path_refused
        if refused > size:
            wanted = self._path_hint if size <= self._path_hint < refused else (size + refused) // 2
        if wanted - size < _NEAR and (wanted not in (most, self._path_hint) or wanted == size):
            # Near enough. From the beginning next time: the path may have changed.
            self._path_refused = 0
            return
        self._path_probed = wanted
        self._path_probe_at = now + min(_NEXT_PROBE, interval)
        sender.probe_size = wanted - size + sender.mss

    def _refuse_probe(self) -> None:
        """The last probe did not get through."""
        refused, self._path_probed = self._path_probed, 0
        if self._path_doubt:
            left = self._network.refuse_probe(self)
            self._path_doubt = self._path_doubt - 1 if left is None else left
            if self._path_doubt:
                # One by itself proves nothing: the same again.
                return
            self._network.learn_mss(self, self.path_mss, sure=True)
        self._path_refused = refused

    def _learn_path(self, now: float) -> None:
        """``una`` moved while a size is in doubt."""
        sender, probe, size = self.sender, self.sender.probe, self._path_probed
        if self._path_untested:
            # What was tried against a black hole gets through. Is it the size, or is an outage over?
            self._path_untested = False
            self._network.learn_mss(self, self.path_mss, sure=False)
            self._path_doubt = self._network.path_doubt(self)
            self._probe_path(now)
        elif not size or sender.probe_size:
            # None was sent yet.
            return
        elif probe is None:
            self._refuse_probe()
            if self._path_doubt:
                self._probe_path(now)
        elif sender.una >= probe.end:
            # Its size is what was sent: what the peer acknowledges of it piece by piece says nothing of that.
            self._grow(size, now)

    def _grow(self, size: int, now: float) -> None:
        """A probe of ``size`` got through. A peer who lies about that gains larger segments, no smaller ones."""
        interval = self._settings.path_probe_interval
        link = self._network.link_mss(self)
        if size >= min(link, self._mss_limit):
            # Nothing is known that fails.
            size = link
        size = min(max(size, self.path_mss), link)
        self.set_path_mss(size)
        self._network.learn_mss(self, size, sure=True)
        if size < self._path_refused and size != self._path_hint:
            self._path_probe_at = now + min(_NEXT_PROBE, interval)
        elif size < link:
            self._path_probe_at = now + interval
