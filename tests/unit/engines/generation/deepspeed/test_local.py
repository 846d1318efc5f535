"""Ranks as processes: their answers, their errors, and their death; the model is not loaded."""

from multiprocessing import Pipe, get_context

import pytest

from deployments.config import GeneratorArgs
from deployments.engines.generation.deepspeed.local import LocalRanks, device_of, end, exchange
from deployments.engines.generation.deepspeed.ranks import Orders
from deployments.errors import EngineFailed


def test_exchange_gives_orders_and_returns_answers_in_the_order_of_the_ranks() -> None:
    (first, its), (second, theirs) = Pipe(), Pipe()
    theirs.send("second")
    its.send("first")
    assert exchange([first, second], Orders(cancels=("a",))) == ["first", "second"]
    assert its.recv() == theirs.recv() == Orders(cancels=("a",))
    for pipe in (first, its, second, theirs):
        pipe.close()


def test_exchange_raises_at_once_what_one_rank_says_and_when_one_is_gone() -> None:
    (first, its), (second, theirs) = Pipe(), Pipe()
    theirs.send(EngineFailed("cannot load"))
    with pytest.raises(EngineFailed, match="cannot load"):
        exchange([first, second], None)
    theirs.close()
    with pytest.raises(EngineFailed, match="a rank has died"):
        exchange([first, second], None)
    for pipe in (first, its, second):
        pipe.close()


def test_device_of_gives_each_rank_its_own_gpu() -> None:
    assert [device_of("cuda", 1), device_of("cpu", 1), device_of("cuda:0", 0)] == [
        "cuda:1",
        "cpu",
        "cuda:0",
    ]


def _sleep() -> None:
    import time

    time.sleep(600)


def test_end_kills_what_does_not_end_by_itself() -> None:
    process = get_context("spawn").Process(target=_sleep, daemon=True)
    process.start()
    end([process])
    assert process.exitcode == -9


@pytest.mark.model
async def test_start_tells_what_a_rank_could_not_do_and_stop_ends_all() -> None:
    ranks = LocalRanks(GeneratorArgs(engine="deepspeed", source="/nowhere", tensor_parallel=2))
    with pytest.raises(EngineFailed, match="neither a folder nor a GGUF file"):
        await ranks.start()
    await ranks.stop()
    assert ranks.pids == []
