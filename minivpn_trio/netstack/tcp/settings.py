"""The knobs of TCP, in one frozen place.

Defaults are chosen for a tunnel of a few hundred Mbit/s; times are seconds,
sizes bytes unless a name says segments.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TcpSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpSettings:
    """How connections of a stack behave."""

    #: The receive window starts here and doubles with what the reader really takes in a round trip.
    #: Opening wide at once overflows the queue of the server's tun device.
    receive_buffer: int = 512 * 1024
    receive_buffer_max: int = 8 * 1024 * 1024
    #: Bytes accepted by ``write`` and not yet acknowledged: at first, and when the congestion window needs more
    #: (four times the window, as a writer is woken when half of it is free).
    send_buffer: int = 256 * 1024
    send_buffer_max: int = 32 * 1024 * 1024
    #: RFC 6928.
    initial_window_segments: int = 10
    #: Slow start ends at the latest with so many segments, about as many datagrams as the default socket
    #: buffer of the server holds, besides what a path of this rate (bits a second) carries in the round trip
    #: that the handshake took. On a path of 20 ms that is no limit; on one without any length, where a
    #: hundred segments fill every queue before the round-trip time could tell, it is all that counts.
    #: None: no limit.
    initial_ssthresh_segments: int | None = 90
    initial_ssthresh_rate: float = 1e9
    #: A train of segments waits until so many fit into the window (or a third of it, or nothing is in flight).
    train_min_segments: int = 32
    #: Largest number of segments built at once for one connection.
    train_max_segments: int = 44
    #: SYNs go out at 0, 1, 3, 7, 15, 31, 63 s, ETIMEDOUT after 127 s (Linux, tcp_syn_retries).
    syn_retries: int = 6
    #: SYN-ACKs at 0, 1, 3, 7, 15, 31 s, forgotten after 63 s (Linux, tcp_synack_retries).
    syn_ack_retries: int = 5
    #: Retransmission timeouts in a row before ETIMEDOUT (Linux, tcp_retries2).
    data_retries: int = 15
    #: The same for a connection that nobody holds any more (Linux, tcp_orphan_retries).
    orphan_retries: int = 8
    #: How long a connection that nobody holds any more waits for a peer that answers and keeps its window closed.
    orphan_timeout: float = 120.0
    #: Timeouts in a row with full segments before a black hole is suspected that swallows them (RFC 4821), and what
    #: is tried then, bytes of payload and options.
    black_hole_retries: int = 2
    black_hole_mss: tuple[int, ...] = (1220, 1024, 536)
    #: How often a path that seems to take less than its link is tried with a larger segment.
    path_probe_interval: float = 600.0
    rto_initial: float = 1.0
    rto_min: float = 0.2
    rto_max: float = 120.0
    delayed_ack: float = 0.04
    #: 2 MSL, as Linux counts it.
    time_wait: float = 60.0
    #: How long a closed connection waits for the peer's FIN.
    fin_wait_2: float = 60.0
    #: Seconds that written data may go without progress before ETIMEDOUT (RFC 5482); None: as many retries as above.
    user_timeout: float | None = None
    #: First keepalive probe after this much silence; None: none unless asked for by connection.
    keepalive_idle: float | None = None
    keepalive_interval: float = 75.0
    keepalive_probes: int = 9
    #: RFC 5961: at most one challenge ACK per connection in this time.
    challenge_ack_interval: float = 0.5
    #: A name in ``congestion.ALGORITHMS``.
    congestion: str = "cubic"
    #: Spread a window over its round trip (pacing.py).
    pacing: bool = True
    timestamps: bool = True
    sack: bool = True
