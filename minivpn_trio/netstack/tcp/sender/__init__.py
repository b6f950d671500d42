"""The sending half of a connection: the send buffer, what may go out, loss recovery, and the retransmission timer.

The class is built in layers, each in a file of its own, each using only those below it:

    sender.py            what may go out now
    acknowledgements.py  what an acknowledgement says
    timers.py            the one deadline, and what it is for
    tail_probe.py        a segment that asks whether the last ones were lost
    recovery.py          losses found, repaired, and taken back
    segmentation.py      the bytes written, and the segments made of them
    state.py             the state

A layer declares again what of the public state it assigns.

Bytes wait in chunks as they were written, become segments when they may be
sent, and stay in the scoreboard until they are acknowledged. Loss is
found by RACK (rack.py) and repaired at the pace of PRR (prr.py); without SACK by three duplicate
acknowledgements (RFC 6582); and at last by the timer, after which everything unacknowledged
counts as lost and goes again from the first byte, in slow start. A probe after two round trips
of silence (TLP, RFC 8985) saves most of those timeouts. undo.py finds out what was for nothing.

The order of business for the owner: ``handle_ack`` for acknowledgements,
``handle_timeout`` when ``deadline`` has passed, then ``take_segments`` until it
returns nothing.
"""

from __future__ import annotations

from .sender import Sender

__all__ = ["Sender"]
