"""in_background: whose exception leaves the block, and in which form."""

from __future__ import annotations

import pytest
import trio

from minivpn_trio.background import in_background, sole_exception


class Defect(Exception):
    pass


async def forever(*, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep_forever()


async def test_a_task_that_fails_before_it_is_started() -> None:
    async def task(*, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery():
            raise Defect

    with pytest.raises(Defect):
        async with in_background(task):
            raise AssertionError("never")

    async def bare(*, task_status: trio.TaskStatus[None]) -> None:
        raise Defect from ZeroDivisionError()

    with pytest.raises(Defect) as caught:
        async with in_background(bare):
            raise AssertionError("never")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_a_task_that_fails_later_cancels_the_body() -> None:
    async def task(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.lowlevel.checkpoint()
        raise Defect

    with pytest.raises(Defect):
        async with in_background(task):
            await trio.sleep_forever()


async def test_a_task_that_ends_by_itself_leaves_the_body_alone() -> None:
    async def task(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()

    async with in_background(task):
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        reached = True
    assert reached


async def test_before_stop_runs_while_the_task_does_and_only_after_a_clean_end() -> None:
    log: list[str] = []

    async def task(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            log.append("stopped")

    async def before_stop() -> None:
        await trio.lowlevel.checkpoint()
        log.append("before")

    async with in_background(task, before_stop):
        pass
    assert log == ["before", "stopped"]
    log.clear()
    with pytest.raises(Defect):
        async with in_background(task, before_stop):
            raise Defect
    assert log == ["stopped"]


async def test_an_outer_cancellation_is_not_swallowed() -> None:
    with trio.CancelScope() as outer:
        async with in_background(forever):
            outer.cancel()
            await trio.sleep_forever()
        raise AssertionError("never")
    assert outer.cancelled_caught


async def test_a_defect_while_cancelled_from_outside_leaves() -> None:
    async def task(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            raise Defect

    with pytest.raises(Defect), trio.CancelScope() as outer:
        async with in_background(task):
            outer.cancel()
            await trio.sleep_forever()


async def test_a_defect_while_the_body_s_exception_is_on_its_way_names_it() -> None:
    async def task(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            raise Defect

    with pytest.raises(Defect) as caught:
        async with in_background(task):
            raise ZeroDivisionError
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_the_body_s_cancel_scope_may_be_inside() -> None:
    async with in_background(forever):
        with trio.move_on_after(0):
            await trio.sleep_forever()
        reached = True
    assert reached


def test_the_sole_exception_of_nested_groups() -> None:
    defect = Defect()
    several = ExceptionGroup("of one task", [Defect(), Defect()])
    assert sole_exception(ExceptionGroup("", [ExceptionGroup("", [defect])])) is defect
    assert sole_exception(ExceptionGroup("", [several])) is several
    assert sole_exception(several) is None
    assert sole_exception(BaseExceptionGroup("", [BaseExceptionGroup("", [KeyboardInterrupt()])])) is not None
