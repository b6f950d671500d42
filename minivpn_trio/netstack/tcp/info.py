"""TCP_INFO: a connection's numbers in the shape of Linux's ``struct tcp_info`` (linux/tcp.h), its first 104 bytes.

Times are microseconds, those since something happened milliseconds; what this stack does not have is 0.
"""

from __future__ import annotations

from struct import Struct

from .connection import TcpConnection
from .state import TcpState

__all__ = ["tcp_info"]

#: Eight small fields and 24 numbers, in the machine's byte order.
_LAYOUT = Struct("=8B24I")
_STATES = {
    TcpState.ESTABLISHED: 1,
    TcpState.SYN_SENT: 2,
    TcpState.SYN_RECEIVED: 3,
    TcpState.FIN_WAIT_1: 4,
    TcpState.FIN_WAIT_2: 5,
    TcpState.CLOSED: 7,
    TcpState.CLOSE_WAIT: 8,
    TcpState.LAST_ACK: 9,
    TcpState.CLOSING: 11,
}
#: tcpi_ca_state: TCP_CA_Open, TCP_CA_Recovery, TCP_CA_Loss.
_OPEN, _RECOVERY, _LOSS = 0, 3, 4
_TIMESTAMPS, _SACK, _WINDOW_SCALE = 1, 2, 4
_MOST = 0xFFFFFFFF


def tcp_info(connection: TcpConnection, pmtu: int) -> bytes:
    """The structure for ``connection``, whose path takes ``pmtu`` bytes."""
    sender, receiver, rto = connection.sender, connection.receiver, connection.sender.rto
    mss = sender.mss
    state = (_LOSS if sender.retries else _RECOVERY) if sender.in_recovery else _OPEN
    options = _WINDOW_SCALE | (_TIMESTAMPS if connection.timestamp_offset >= 0 else 0) | (_SACK if sender.sack else 0)

    def segments(size: int) -> int:
        return -(-size // mss)

    numbers = (
        int(rto.value * 1e6), 0, mss, receiver.mss,  # rto, ato, snd_mss, rcv_mss
        segments(sender.nxt - sender.una), segments(sender.board.sacked_bytes), 0, 0, 0,  # unacked, sacked, ...
        0, 0, 0, 0,  # since the last data and ACKs
        pmtu, receiver.capacity, int(rto.srtt * 1e6), int(rto.rttvar * 1e6),  # pmtu, rcv_ssthresh, rtt, rttvar
        segments(sender.congestion.threshold), segments(sender.congestion.window),  # snd_ssthresh, snd_cwnd
        receiver.mss, 3, 0, receiver.capacity,  # advmss, reordering, rcv_rtt, rcv_space
        sender.retransmissions,  # total_retrans
    )  # fmt: skip
    scales = receiver.scale << 4
    small = (_STATES[connection.state], state, min(sender.retries, 255), 0, min(rto.backoff, 255), options, scales, 0)
    return _LAYOUT.pack(*small, *(min(max(number, 0), _MOST) for number in numbers))
