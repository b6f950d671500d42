"""The tlssession worker: one inlet, one timer, and what the session has to say after each step."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from ..errors import MiniVPNError
from ..events import Event
from ..items import (
    ChallengeAnswer,
    DataChannelKey,
    KeepaliveTimes,
    RekeyWanted,
    RemoteBound,
    RenegotiationKey,
    SoftResetSeen,
    TLSBytes,
    TunnelUp,
)
from ..ports import Inlet, WaitingOutlet
from .machine import SessionMachine
from .outbox import Outgoing
from .session import TlsSession

__all__ = ["Incoming", "worker"]

Incoming = RemoteBound | TLSBytes | SoftResetSeen | RekeyWanted | ChallengeAnswer

#: Seconds that a failed session lives on, so that the alert which tells the peer can leave.
LAST_WORDS = 0.05


async def worker(
    session: SessionMachine,
    *,
    inlet: Inlet[Incoming],
    outlet: WaitingOutlet[Outgoing],
    keys: WaitingOutlet[DataChannelKey | KeepaliveTimes],
    wraps: WaitingOutlet[RenegotiationKey],
    up: WaitingOutlet[TunnelUp],
    emit: Callable[[Event], None],
) -> None:
    """Run ``session`` until it fails, the inlet ends, or it is cancelled.

    Raises ConnectError or one of its kinds, AuthFailed or TunnelClosed: the session's verdict.
    """

    async def flush() -> bool:
        """Hand out what there is. Whether anything goes to the peer."""
        for event in session.poll_events():
            emit(event)
        # Before anything that may be a soft reset: that one is wrapped with it already.
        for renegotiation_key in session.poll_renegotiation_keys():
            await wraps.send(renegotiation_key)
        outgoing = session.poll_outgoing()
        for item in outgoing:
            await outlet.send(item)
        # The keys first: whoever hears that the tunnel is up may send at once.
        for key in session.poll_keys():
            await keys.send(key)
        for times in session.poll_keepalives():
            await keys.send(times)
        for news in session.poll_ups():
            await up.send(news)
        return bool(outgoing)

    try:
        session.start(trio.current_time())
        while True:
            await flush()
            due = session.next_timeout()
            with trio.move_on_at(math.inf if due is None else due):
                item = await inlet.receive()
                _handle(session, item, trio.current_time())
                continue
            session.handle_timeout(trio.current_time())
    except trio.EndOfChannel:
        return
    except MiniVPNError:
        # Shielded: the alert makes a TCP server hang up, which ends the connection; the verdict must still be told.
        with trio.move_on_after(LAST_WORDS, shield=True):
            if await flush():
                await trio.sleep_forever()
        raise


def _handle(session: SessionMachine, item: Incoming, now: float) -> None:
    match item:
        case TLSBytes(key_id, data):
            session.handle_tls_bytes(key_id, data, now)
        case SoftResetSeen(key_id):
            session.handle_soft_reset(key_id, now)
        case RekeyWanted(reason):
            session.handle_rekey_wanted(reason, now)
        case RemoteBound():
            session.handle_remote_bound(now)
        case ChallengeAnswer(challenge, answer):
            if isinstance(session, TlsSession):
                session.handle_answer(challenge, answer, now)
