"""Waits for what threads do."""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from deployments.errors import StoreUnavailable
from deployments.ingress import ended as module
from deployments.ingress.ended import ended


async def test_what_threads_end_is_told_to_each_who_waits() -> None:
    futures: list[Future[int]] = [Future() for _ in range(2000)]
    waiting = [asyncio.create_task(ended(future)) for future in futures]
    await asyncio.sleep(0)
    with ThreadPoolExecutor(8) as threads:
        for number, future in enumerate(futures):
            threads.submit(future.set_result, number)
        assert await asyncio.gather(*waiting) == [*range(2000)]


async def test_what_ends_together_wakes_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    wakes, call = [], loop.call_soon_threadsafe

    def counted(*args: object) -> object:
        wakes.append(args)
        return call(*args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    futures: list[Future[None]] = [Future() for _ in range(50)]
    waiting = [asyncio.create_task(ended(future)) for future in futures]
    await asyncio.sleep(0)
    for future in futures:
        future.set_result(None)
    await asyncio.gather(*waiting)
    assert len(wakes) == 1


async def test_error_is_raised_and_an_end_before_the_wait_is_seen() -> None:
    done: Future[str] = Future()
    done.set_result("early")
    assert await ended(done) == "early"
    failed: Future[None] = Future()
    failed.set_exception(StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable, match="away"):
        await ended(failed)
    cancelled: Future[None] = Future()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ended(cancelled)


async def test_work_goes_on_when_whoever_waits_has_left() -> None:
    future: Future[int] = Future()
    waiting = asyncio.create_task(ended(future))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not future.cancelled()
    future.set_result(1)  # it finds nobody, and the next one who waits is told all the same
    assert await ended(future) == 1


def test_end_after_its_loop_is_no_fault() -> None:
    future: Future[int] = Future()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await ended(future, 0.01)

    asyncio.run(leave())
    future.set_result(1)
    assert future.done()


def test_every_loop_has_its_own_and_none_is_kept() -> None:
    async def wait() -> None:
        future: Future[int] = Future()
        future.set_result(1)
        await ended(future)

    before = len(module._KNOWN)
    for _ in range(5):
        asyncio.run(wait())
    assert len(module._KNOWN) <= before + 1
