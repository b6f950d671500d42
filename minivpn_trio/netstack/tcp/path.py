"""What the path does to a connection: ICMP errors, the size of segments it takes, and finding that out without ICMP.

Packet-too-big messages lower the size at once (RFC 1191). Where they do not come, timeouts in a row with full
segments make a black hole likely: smaller sizes are tried, and one that gets through is remembered for the
destination. A lowered size is tried upwards again every ten minutes, by single larger segments whose loss
is no sign of congestion (RFC 4821): one as large as the link takes; if it is lost, one of the size that a router
named for it, or halfway to what is known to pass; and so on, until that is near.
"""

from __future__ import annotations

from ..sequence import unwrap
from .handshake import Handshake
from .state import HANDSHAKE

__all__ = ["Path"]

#: Seconds after a suspicion until a full segment is tried again.
_FIRST_PROBE = 10.0
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
        """A segment in flight was too big: smaller ones from now on, and all in flight again (RFC 1191). Does not
        send."""
        if mss >= self.path_mss:
            # About a probe: it says what to try next.
            self._path_hint = mss
            return
        self._shrink(mss, now)

    def _shrink(self, mss: int, now: float) -> None:
        self.set_path_mss(mss)
        self._path_refused = 0
        self._path_probe_at = now + self._settings.path_probe_interval
        if self._builder is not None:
            # Not a sign of congestion.
            self.sender.board.lose_all(forget_sacks=False)

    def _suspect_black_hole(self, now: float) -> None:
        """The timer has gone off: if it was not the first time, and the segment a full one, try a smaller size."""
        sender = self.sender
        first = sender.board.first
        if sender.retries < self._settings.black_hole_retries or first is None or first.end - first.start < sender.mss:
            return
        for mss in self._settings.black_hole_mss:
            if mss < min(self.path_mss, self._mss_limit):
                self._shrink(mss, now)
                self._path_untested = True
                # It may have been an outage: do not stay small for long.
                self._path_probe_at = now + min(_FIRST_PROBE, self._settings.path_probe_interval)
                return

    def _probe_path(self, now: float) -> None:
        """Time to see whether the path takes more: the next full segment will be a larger one."""
        sender, interval = self.sender, self._settings.path_probe_interval
        size = min(self.path_mss, self._mss_limit)
        most = min(self._network.link_mss(self), self._mss_limit)
        self._path_probe_at = now + interval
        if size >= most or not sender.sack or sender.probe is not None:
            return
        if not sender.probe_size and self._path_probed > size:
            # The last one did not get through.
            self._path_refused, self._path_probed = self._path_probed, 0
        wanted, refused = most, self._path_refused
        if refused > size:
            wanted = self._path_hint if size < self._path_hint < refused else (size + refused) // 2
        if wanted - size < _NEAR and wanted not in (most, self._path_hint):
            # Near enough. From the beginning next time: the path may have changed.
            self._path_refused = 0
            return
        self._path_probed = wanted
        self._path_probe_at = now + min(_FIRST_PROBE, interval)
        sender.probe_size = wanted - size + sender.mss

    def _learn_path(self, now: float) -> None:
        """``una`` moved while a size is in doubt."""
        sender, probe = self.sender, self.sender.probe
        if self._path_untested:
            # What was tried against a black hole gets through.
            self._path_untested = False
            self._network.learn_mss(self, self.path_mss)
        elif probe is not None and sender.una >= probe.end:
            size = min(self.path_mss, self._mss_limit) + probe.end - probe.start - sender.mss
            self.set_path_mss(size)
            self._network.learn_mss(self, size)
            self._path_probed = 0
            if size < self._path_refused and size != self._path_hint:
                self._path_probe_at = now + min(_FIRST_PROBE, self._settings.path_probe_interval)
            elif size < self._network.link_mss(self):
                self._path_probe_at = now + self._settings.path_probe_interval
