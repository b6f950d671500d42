"""TunSocket: a ``trio.socket.SocketType`` whose network is a stack, not the kernel.

Trio's own ``SocketStream`` and everything built on it check only that they
are given a SocketType, so an application gets a real ``trio.SocketStream``.
There is no file descriptor behind it: ``fileno()`` is a number that none can have.

SocketType is wide, so the class is built in layers, each in a file of its own, each using only those below it:

    tun_socket.py  listening and accepting, ``with``, and what such a socket cannot do
    sending.py     streams and datagrams out
    receiving.py   streams and datagrams in
    lifecycle.py   bind, connect, shutdown, close
    names.py       addresses of both ends, and names that are looked up
    options.py     getsockopt, setsockopt
    state.py       the state, readiness, waiting

Behaviour is the kernel's as Trio shows it: ``send`` may be partial, errors are
OSErrors with the kernel's errno, a closed socket raises EBADF, closing wakes
blocked tasks with ClosedResourceError, a second receiver or sender gets
BusyResourceError. All async methods checkpoint and are cancel-safe: bytes are
taken or handed over after the last checkpoint, so a cancelled call did
nothing. Only a cancelled ``connect`` closes the socket. Nothing here has a
timeout: that is the caller's cancel scope. A socket that is forgotten without
being closed is closed then, with a ResourceWarning.
"""

from __future__ import annotations

from .state import Resolve
from .tun_socket import TunSocket

__all__ = ["Resolve", "TunSocket"]
