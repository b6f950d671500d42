"""The states of a connection (RFC 9293, 3.3.2)."""

from __future__ import annotations

from enum import Enum

__all__ = ["HANDSHAKE", "SENDING", "TcpState"]


class TcpState(Enum):
    """Without LISTEN, which is a listener's, and TIME-WAIT, which is a record's."""

    SYN_SENT = "SYN-SENT"
    SYN_RECEIVED = "SYN-RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN-WAIT-1"
    FIN_WAIT_2 = "FIN-WAIT-2"
    CLOSE_WAIT = "CLOSE-WAIT"
    CLOSING = "CLOSING"
    LAST_ACK = "LAST-ACK"
    CLOSED = "CLOSED"


#: Before the connection exists for both sides. A tuple: the hash of a member of an enum is computed in Python.
HANDSHAKE = (TcpState.SYN_SENT, TcpState.SYN_RECEIVED)
#: Data may be written.
SENDING = (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT)
