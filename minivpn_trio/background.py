"""A background task for the length of an ``async with`` block, without its marks on the block's exceptions.

A nursery wraps what its body raises in an ExceptionGroup. For a block of ours
that would be a surprise, so the cases are decided once, here:

- the body raises: its exception leaves the block as it is, ExceptionGroup or not;
- the task fails before it is started: its exception leaves, alone;
- the task fails later (a defect: tasks of this package report failures by other
  means): the body is cancelled and the task's exception leaves, alone;
- somebody outside cancels: Cancelled travels on in whatever it came in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

__all__ = ["in_background", "sole_exception"]


@asynccontextmanager
async def in_background(
    task: Callable[..., Awaitable[Any]], before_stop: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[None]:
    """Run ``task`` (which takes ``task_status``) until the block ends; enter when it has started.

    ``before_stop`` runs when the body ended without an exception, before the
    task is cancelled. Checkpoints.
    """
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(task)
            try:
                yield
                if before_stop is not None:
                    await before_stop()
            except BaseException as exc:  # kept, to leave the block below as it came
                raised = exc
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # Never the body's. One that holds nothing but Cancelled belongs to an outer scope.
        defect = sole_exception(group)
        if defect is not None:
            raise defect from defect.__cause__ or (None if isinstance(raised, trio.Cancelled) else raised)
        if raised is None or isinstance(raised, trio.Cancelled) or not _only_cancelled(group):
            raise
        # The body raised while somebody outside cancelled: as everywhere, its exception wins.
    if raised is not None:
        raise raised


def sole_exception(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The one exception in ``group`` that is no Cancelled, out of all nurseries' groups; None: there are several."""
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup):
        others = [exc for exc in inner.exceptions if not _only_cancelled(exc)]
        if len(others) != 1:
            # One task's own group is that task's exception.
            return inner if others and inner is not group else None
        inner = others[0]
    return inner


def _only_cancelled(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(map(_only_cancelled, exc.exceptions))
    return isinstance(exc, trio.Cancelled)
