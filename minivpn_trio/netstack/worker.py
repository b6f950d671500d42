"""The two workers of a stack, and the Pump that they and the sockets share.

``move_up`` feeds arriving bursts to the stack. ``move_down`` runs the stack's
timers and sends what could not be sent at once. What a socket's call or an
arriving burst makes the stack say goes out in the same step, by
``send_nowait``, so that an application's bytes take no extra hop; only when
the edge down is full does ``move_down`` wait for room.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import trio

from ..items import Burst
from ..ports import Inlet, WaitingOutlet, stepped
from .stack import Stack

__all__ = ["Pump", "move_down", "move_up"]

P = ParamSpec("P")
T = TypeVar("T")


class Pump:
    """Where everything that touches a running stack goes through, so that its output leaves promptly.

    ``run`` wraps every command; ``flush`` sends what is ready. Output that
    appears outside of ``run`` wakes ``move_down``.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        #: Whether the tunnel is gone for good.
        self.down = False
        self._outlet: WaitingOutlet[Burst] | None = None
        # Taken from the stack, for which there was no room: move_down sends it before anything else.
        self._held: Burst | None = None
        self._running = self._worked = False
        self._wake = trio.Event()
        # Where move_down sleeps, if it does: its deadline is the stack's next timeout, or earlier.
        self._sleep: trio.CancelScope | None = None
        stack.on_work = self._on_work

    def run(self, command: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``command`` and send at once what it made the stack say."""
        self._running = True
        try:
            return command(*args, **kwargs)
        finally:
            self._running = False
            self.flush()

    def run_quietly(self, command: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As ``run``, for a command that rarely makes the stack say or expect anything: nothing is looked for unless
        the stack says so."""
        self._running, self._worked = True, False
        try:
            return command(*args, **kwargs)
        finally:
            self._running = False
            # Memory may have been given back by a connection that was forgotten, at a moment when nobody can be called.
            if self._worked or self.stack.memory.relief_due:
                self.flush()

    def flush(self) -> None:
        """Send what the stack has to say as far as there is room; ``move_down`` does the rest."""
        outlet = self._outlet
        if outlet is None or self._held is not None:
            return
        stack, now = self.stack, trio.current_time()
        while burst := stack.take_output(64, now):
            try:
                outlet.send_nowait(burst)
            except trio.WouldBlock:
                self._held = burst
                self._wake.set()
                return
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # The tunnel is going down; move_up hears of it and fails the stack.
                return
            if not stack.has_output:
                break
        sleep, timeout = self._sleep, stack.next_timeout()
        if sleep is not None and timeout is not None and timeout < sleep.deadline:
            # Waking the task so that it sets this itself would cost two turns of the scheduler for each paced train.
            sleep.deadline = timeout

    def fail(self) -> None:
        """The tunnel is gone: every socket fails with ENETDOWN, now and until the stack is reconfigured."""
        self.stack.fail(OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN)))

    def _on_work(self) -> None:
        self._worked = True
        if not self._running:
            self._wake.set()

    async def _drive(self, outlet: WaitingOutlet[Burst]) -> None:
        stack = self.stack
        self._outlet = outlet
        try:
            while True:
                self._wake = trio.Event()
                if self._held is None:
                    self._held = stack.take_output(64, trio.current_time()) or None
                if self._held is not None:
                    await outlet.send(self._held)
                    self._held = None
                elif (timeout := stack.next_timeout()) is None or timeout > trio.current_time():
                    with trio.move_on_at(math.inf if timeout is None else timeout) as self._sleep:
                        await self._wake.wait()
                    self._sleep = None
                else:
                    await trio.lowlevel.checkpoint()
                # Also between two bursts: a way out that is never idle must not stop the clock.
                now = trio.current_time()
                if (timeout := stack.next_timeout()) is not None and timeout <= now:
                    self.run(stack.handle_timeout, now)
        finally:
            self._outlet = self._sleep = None


async def move_up(stack: Stack, *, inlet: Inlet[Burst], pump: Pump) -> None:
    """Feed the stack with what arrives, until ``inlet`` ends; then every socket fails with ENETDOWN."""

    def step(burst: Burst) -> None:
        pump.run(stack.handle_packets, burst, trio.current_time())

    try:
        with stepped(inlet, step):
            while True:
                step(await inlet.receive())
    except (trio.EndOfChannel, trio.ClosedResourceError):
        pump.down = True
        pump.fail()


async def move_down(stack: Stack, *, outlet: WaitingOutlet[Burst], pump: Pump) -> None:
    """Run the timers of ``stack`` and send what waits for room, until cancelled or nobody takes it any more."""
    assert pump.stack is stack
    try:
        await pump._drive(outlet)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pump.down = True
        pump.fail()
