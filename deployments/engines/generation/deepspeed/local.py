"""Ranks as processes of this host, for where there is no Ray."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from deployments.config import GeneratorArgs
from deployments.engines.generation.deepspeed.ranks import ModelFacts, Orders, Outcome, Place
from deployments.errors import EngineFailed

LOOPBACK = "127.0.0.1"


def serve(args: GeneratorArgs, place: Place, pipe: Connection) -> None:
    """Be one rank until the pipe is closed; answers are results, or the errors in their place."""
    from deployments.engines.generation.deepspeed.rank import Rank

    try:
        rank = Rank(args, place)
        pipe.send(rank.facts)
        while True:
            pipe.send(rank.step(pipe.recv()))
    except EOFError:
        return
    except Exception as error:  # whatever it was, this rank is of no more use, and says so
        pipe.send(error if isinstance(error, EngineFailed) else EngineFailed(repr(error)))


class LocalRanks:
    """A gang on this host; see `Ranks` for the contract."""

    def __init__(self, args: GeneratorArgs) -> None:
        self._args = args
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []

    @property
    def pids(self) -> list[int]:
        """Return the process ids, the first rank's first."""
        return [process.pid for process in self._processes if process.pid is not None]

    async def start(self) -> ModelFacts:
        """Start every rank and wait until all have loaded; raises EngineFailed."""
        self._threads = ThreadPoolExecutor(1, "ranks")
        context = get_context("spawn")
        size, port = self._args.tensor_parallel, free_port(LOOPBACK)
        for rank in range(size):
            place = Place(
                rank, size, rank, size, LOOPBACK, port, device_of(self._args.device, rank)
            )
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(self._args, place, theirs), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)
        facts = await self._answers()
        if len(set(facts)) > 1:
            raise EngineFailed("the ranks have loaded different models")
        return facts[0]

    async def step(self, orders: Orders) -> Outcome:
        """Let every rank compute one step; raises EngineFailed."""
        try:
            for pipe in self._pipes:
                pipe.send(orders)
        except OSError as error:
            raise EngineFailed("a rank has died") from error
        outcome, *_ = await self._answers()
        return outcome

    async def _answers(self) -> list[Any]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(receive, list(self._pipes)))

    async def stop(self) -> None:
        """Kill every rank: one that waits for a dead one would not hear anything else."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            await asyncio.to_thread(process.join)
        for pipe in self._pipes:
            pipe.close()
        self._processes.clear()
        self._pipes.clear()


def receive(pipes: list[Connection]) -> list[Any]:
    """Return one answer of each rank.

    Raises:
        EngineFailed: a rank answers with an error, or has died.
    """
    answers: dict[Connection, Any] = {}
    while len(answers) < len(pipes):
        for ready in wait([pipe for pipe in pipes if pipe not in answers]):
            assert isinstance(ready, Connection)
            answers[ready] = _receive(ready)
    return [answers[pipe] for pipe in pipes]


def _receive(pipe: Connection) -> Any:
    try:
        answer = pipe.recv()
    except (EOFError, OSError) as error:
        raise EngineFailed("a rank has died") from error
    if isinstance(answer, EngineFailed):
        raise answer
    return answer


def free_port(address: str) -> int:
    """Return a port that is free now; a gang that finds it taken is started again."""
    with socket.create_server((address, 0)) as listener:
        return int(listener.getsockname()[1])


def device_of(device: str, index: int) -> str:
    """Return the device of a rank: ranks on GPUs have one each, those on CPUs share it."""
    return f"{device}:{index}" if device == "cuda" else device
