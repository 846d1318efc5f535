"""Ranks as processes of this host, for where there is no Ray."""

import asyncio
import contextlib
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, cast

from deployments.config import GeneratorArgs
from deployments.engines.generation.deepspeed.ranks import ModelFacts, Orders, Outcome
from deployments.errors import EngineFailed
from deployments.types.seats import LOOPBACK, Seat

GRACE_S = 1.0

logger = logging.getLogger(__name__)


def serve(args: GeneratorArgs, seat: Seat, pipe: Connection) -> None:
    """Be one rank until the pipe is closed; answers are results, or the errors in their seat."""
    from deployments.engines.generation.deepspeed.rank import Rank

    with contextlib.suppress(EOFError, OSError):  # the engine has closed its end
        try:
            rank = Rank(args, seat)
            answer: Any = rank.facts
            while True:
                pipe.send(answer)
                answer = rank.step(pipe.recv())
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:  # whatever it was, this rank is of no more use, and says so
            logger.exception("rank %d failed", seat.rank)
            kind = type(error).__name__
            pipe.send(
                error if isinstance(error, EngineFailed) else EngineFailed(f"{kind} in a rank")
            )


class LocalRanks:
    """A gang on this host; see `Ranks` for the contract."""

    def __init__(self, args: GeneratorArgs) -> None:
        self._args = args
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        self._thread: ThreadPoolExecutor | None = None

    @property
    def pids(self) -> list[int]:
        """Return the process ids, the first rank's first."""
        return [process.pid for process in self._processes if process.pid is not None]

    async def start(self) -> ModelFacts:
        """Start every rank and wait until all have loaded; raises EngineFailed."""
        self._thread = ThreadPoolExecutor(1, "ranks")
        context = get_context("spawn")
        size, port = self._args.tensor_parallel, free_port(LOOPBACK)
        for rank in range(size):
            seat = Seat(rank, size, rank, size, LOOPBACK, port, device_of(self._args.device, rank))
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(self._args, seat, theirs), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)
        facts = await self._answers()
        if len(set(facts)) > 1:
            raise EngineFailed("the ranks have loaded different models")
        return cast(ModelFacts, facts[0])

    async def step(self, orders: Orders) -> Outcome:
        """Let every rank compute one step; raises EngineFailed."""
        outcome, *_ = await self._answers(orders)
        return cast(Outcome, outcome)

    async def _answers(self, orders: Orders | None = None) -> list[Any]:
        """Return one answer of each rank, to the orders or to its start."""
        asked = partial(exchange, list(self._pipes), orders)
        return await asyncio.get_running_loop().run_in_executor(self._thread, asked)

    async def stop(self) -> None:
        """End every rank: by itself where it is idle; one that waits for a dead one is killed."""
        for pipe in self._pipes:
            pipe.close()
        await asyncio.to_thread(end, list(self._processes))
        if self._thread is not None:
            self._thread.shutdown(wait=False)
        self._processes.clear()
        self._pipes.clear()


def end(processes: list[BaseProcess]) -> None:
    """Wait a moment for the processes to end, then kill those that have not."""
    deadline = time.monotonic() + GRACE_S
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    for process in processes:
        process.kill()
        process.join()


def exchange(pipes: list[Connection], orders: Orders | None) -> list[Any]:
    """Give the orders, where there are any, and return one answer of each rank.

    Raises:
        EngineFailed: a rank answers with an error, or has died.
    """
    answers: dict[Connection, Any] = {}
    try:
        for pipe in pipes if orders is not None else ():
            pipe.send(orders)
        while len(answers) < len(pipes):
            for ready in wait([pipe for pipe in pipes if pipe not in answers]):
                assert isinstance(ready, Connection)
                answers[ready] = ready.recv()
                if isinstance(answers[ready], EngineFailed):
                    raise answers[ready]
    except (EOFError, OSError) as error:
        raise EngineFailed("a rank has died") from error
    return [answers[pipe] for pipe in pipes]


def free_port(address: str) -> int:
    """Return a port that is free now; a gang that finds it taken is started again."""
    with socket.create_server((address, 0)) as listener:
        return int(listener.getsockname()[1])


def device_of(device: str, index: int) -> str:
    """Return the device of a rank: ranks on GPUs have one each, those on CPUs share it."""
    return f"{device}:{index}" if device == "cuda" else device
