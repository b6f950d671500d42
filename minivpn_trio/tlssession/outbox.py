"""Outbox: what a session has to say to its neighbours, collected until it is polled.

A session says several things in one step, and may fail in the same step: what it said before still counts, such as the
TLS alert that tells the peer why. So nothing is returned or called; all of it lies here, by addressee, until the worker
has the step behind it.
"""

from __future__ import annotations

from ..events import Event
from ..items import (
    DataChannelKey,
    ExpectKey,
    KeepaliveTimes,
    OpenKey,
    RenegotiationKey,
    RetireKey,
    TLSBytes,
    TunnelUp,
)

__all__ = ["Outbox", "Outgoing"]

#: What goes down to controlchannel.
Outgoing = TLSBytes | OpenKey | ExpectKey | RetireKey


class Outbox:
    """The lowest layer of a session: lists that the layers above append to, and ``poll_*``, which empty them."""

    def __init__(self) -> None:
        self._outgoing: list[Outgoing] = []
        self._keys: list[DataChannelKey] = []
        self._keepalives: list[KeepaliveTimes] = []
        self._renegotiation_keys: list[RenegotiationKey] = []
        self._ups: list[TunnelUp] = []
        self._events: list[Event] = []

    def _emit(self, event: Event) -> None:
        self._events.append(event)

    def poll_outgoing(self) -> list[Outgoing]:
        """What goes down to controlchannel, in order."""
        taken, self._outgoing = self._outgoing, []
        return taken

    def poll_keys(self) -> list[DataChannelKey]:
        """New data keys for datachannel."""
        taken, self._keys = self._keys, []
        return taken

    def poll_keepalives(self) -> list[KeepaliveTimes]:
        """Changed times of the live tunnel, for datachannel."""
        taken, self._keepalives = self._keepalives, []
        return taken

    def poll_renegotiation_keys(self) -> list[RenegotiationKey]:
        """A key for packetmuxer, which has to be installed before what ``poll_outgoing`` says is sent."""
        taken, self._renegotiation_keys = self._renegotiation_keys, []
        return taken

    def poll_ups(self) -> list[TunnelUp]:
        """What the client must know about the tunnel."""
        taken, self._ups = self._ups, []
        return taken

    def poll_events(self) -> list[Event]:
        """What happened."""
        taken, self._events = self._events, []
        return taken
