"""Run by ``nox -s stubs`` only, where trio-typing is installed: its run-time protocols fit today's Trio."""

from __future__ import annotations

import trio
import trio_typing


async def test_live_task_status_is_one() -> None:
    seen: list[object] = []

    async def child(task_status: trio.TaskStatus[None]) -> None:
        seen.append(task_status)
        task_status.started()

    async with trio.open_nursery() as nursery:
        await nursery.start(child)
    assert isinstance(seen[0], trio_typing.TaskStatus)
