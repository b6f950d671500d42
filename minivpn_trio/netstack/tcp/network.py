"""What a connection needs of the stack around it."""

from __future__ import annotations

import os
from typing import Protocol, TypeVar

from ...errors import DropReason
from ..inbound import Inbound
from ..memory import MemoryBudget
from ..packets import Address, TcpSegment
from ..paths import Path, Paths

__all__ = ["Network", "os_error"]

#: The stack's class of connections, which the layers below it do not know.
Connection_contra = TypeVar("Connection_contra", contravariant=True)


def os_error(number: int) -> OSError:
    """The OSError of an errno, of the right subclass."""
    return OSError(number, os.strerror(number))


class Network(Protocol[Connection_contra]):
    """What a connection needs of the stack."""

    #: What all connections hold together.
    memory: MemoryBudget
    #: How much may be under way to all of them.
    inbound: Inbound
    #: What those to the same host share.
    paths: Paths

    def emit(self, packet: bytes) -> bool:
        """Queue a packet; False: dropped, there is no room."""
        ...

    def emit_train(self, packets: list[bytes]) -> None:
        """Queue packets for which ``room`` said that there is room."""
        ...

    def path_to(self, remote: Address) -> Path:
        """What connections to ``remote`` share."""
        ...

    def has_room(self, credit: bool) -> bool:
        """Whether something that could be left out may be queued: there is room, and nobody waits for it; or, with
        ``credit``, at least not twice as much as there should be."""
        ...

    def room(self, connection: Connection_contra) -> int:
        """How many packets of data may be queued now, as one train. If none, or if others wait, ``flush`` is called
        again when it is this connection's turn."""
        ...

    def build(self, segment: TcpSegment) -> bytes:
        """A packet, the slow way."""
        ...

    def parse(self, packet: bytes) -> TcpSegment | None:
        """A segment, the slow way; None: malformed, counted."""
        ...

    def may_reset(self, now: float) -> bool:
        """Whether one more RST may be sent that anybody can bring about: so many a second and no more."""
        ...

    def arm(self, connection: Connection_contra) -> None:
        """``connection.deadline`` may have moved."""
        ...

    def drop(self, reason: DropReason) -> None:
        """Count a packet that was not used."""
        ...

    def established(self, connection: Connection_contra) -> None:
        """The handshake is complete: the fast path may be taken."""
        ...

    def forget(self, connection: Connection_contra) -> None:
        """The connection is over, without TIME-WAIT."""
        ...

    def time_wait(self, connection: Connection_contra) -> None:
        """The connection is over and its four-tuple rests."""
        ...

    def learn_mss(self, connection: Connection_contra, mss: int, *, sure: bool) -> None:
        """Segments of ``mss``, before options, get through to this destination; larger ones do not, or, if it is not
        ``sure``, may not."""
        ...

    def path_doubt(self, connection: Connection_contra) -> int:
        """How many larger segments must fail before what is known of this destination is more than a guess; 0: it
        is."""
        ...

    def refuse_probe(self, connection: Connection_contra) -> int | None:
        """A larger segment failed. As ``path_doubt``, after that; None: nothing is guessed of the destination now."""
        ...

    def probe_at(self, connection: Connection_contra) -> float:
        """When to try whether the path takes more than was known of it when the connection began: now or earlier if
        that was a guess; inf: nothing is known any more."""
        ...

    def link_mss(self, connection: Connection_contra) -> int:
        """The largest payload, before options, that the link takes, whatever is known of the path."""
        ...
