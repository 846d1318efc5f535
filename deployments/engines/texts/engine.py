"""The engine around a blocking model that reads texts: loaded once, shared by all, stopped.

Texts are tokenised on threads of their own and computed on others, so that the event loop stays
free. It does not know what is computed; a subclass says that, and how its model is loaded.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ClassVar, Generic, Protocol, TypeVar

from deployments.engines.texts.batching import Item, TokenBatcher
from deployments.errors import EngineFailed, RagError
from deployments.types import Vectors

_TEXTS_PER_CALL = 64
"""Texts tokenised before another caller gets its turn on the thread."""


class BatchArgs(Protocol):
    """What an engine's configuration says of its batches."""

    @property
    def max_batch_tokens(self) -> int:
        """Return the most tokens of a batch, padding included."""
        ...

    @property
    def max_waiting_tokens(self) -> int:
        """Return the most tokens that may wait."""
        ...


class Forgetful(Protocol):
    """A tokenizer that can be told to forget."""

    def forget(self) -> None:
        """Forget what of earlier texts is remembered."""
        ...


class ReadingModel(Protocol):
    """What a loaded model has beside its own calls."""

    @property
    def tokenizer(self) -> Forgetful:
        """Return what makes tokens of texts."""
        ...

    @property
    def num_workers(self) -> int:
        """Return on how many threads at once it computes."""
        ...

    @property
    def prepare_worker(self) -> Callable[[], None]:
        """Return what each of these threads calls first."""
        ...


Args = TypeVar("Args", bound=BatchArgs)
ModelT = TypeVar("ModelT", bound=ReadingModel)
Result = TypeVar("Result")


class TextEngine(ABC, Generic[Args, ModelT, Item]):
    """Loads a model and batches what it reads, an `Item` for each text or pair of texts."""

    kind: ClassVar[str]
    """What it does, for errors and the names of threads."""

    def __init__(self, args: Args) -> None:
        self._args = args
        self._threads: list[ThreadPoolExecutor] = []
        self._text_thread = self._thread("text")
        self._loader = ThreadPoolExecutor(1, f"{self.kind}-loader")
        self._workers: ThreadPoolExecutor | None = None
        self._loaded: tuple[ModelT, TokenBatcher[Item]] | None = None

    @abstractmethod
    def load(self, args: Args) -> ModelT:
        """Load the model; called on a thread of its own.

        Raises:
            EngineFailed: the model cannot be loaded.
        """

    @abstractmethod
    def compute(self, model: ModelT, items: Sequence[Item]) -> Vectors:
        """Return a row for each item; called on the model's threads, and blocks."""

    async def start(self) -> None:
        """Load the weights.

        Raises:
            EngineFailed: the model cannot be loaded.
        """
        if self._loaded is not None:
            return
        loop = asyncio.get_running_loop()
        try:
            model = await loop.run_in_executor(self._loader, self.load, self._args)
        except RagError:
            raise
        except Exception as error:
            # Loaders raise anything for a damaged folder; the caller needs one typed error.
            raise EngineFailed(
                f"the {self.kind} model does not load: {type(error).__name__}"
            ) from error
        self._workers = ThreadPoolExecutor(
            model.num_workers, f"{self.kind}-model", initializer=model.prepare_worker
        )
        batcher = TokenBatcher[Item](
            partial(self.compute, model),
            self._workers,
            num_workers=model.num_workers,
            max_batch_tokens=self._args.max_batch_tokens,
            max_waiting_tokens=self._args.max_waiting_tokens,
        )
        self._loaded = (model, batcher)

    def forget(self) -> None:
        """Keep nothing of the texts so far: the tokenizer alone remembers any, their words."""
        if self._loaded is not None:
            self._model.tokenizer.forget()

    def num_tokens_waiting(self) -> int:
        """Return how many tokens are queued."""
        return 0 if self._loaded is None else self._loaded[1].num_tokens_waiting()

    async def stop(self) -> None:
        """Free the weights; waiting callers get EngineFailed."""
        if self._loaded is not None:
            await self._loaded[1].stop()
            self._loaded = None
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)
        self._loader.shutdown(wait=False)
        if self._workers is not None:
            self._workers.shutdown(wait=False, cancel_futures=True)

    def _thread(self, name: str) -> ThreadPoolExecutor:
        """Return a thread of its own, which ends with the engine."""
        self._threads.append(ThreadPoolExecutor(1, f"{self.kind}-{name}"))
        return self._threads[-1]

    @property
    def _model(self) -> ModelT:
        return self._running()[0]

    @property
    def _batcher(self) -> TokenBatcher[Item]:
        return self._running()[1]

    def _running(self) -> tuple[ModelT, TokenBatcher[Item]]:
        if self._loaded is None:
            raise EngineFailed(f"the {self.kind} engine is not running")
        return self._loaded

    async def _tokenize(
        self,
        texts: Sequence[str],
        work: Callable[[Sequence[str]], list[Result]],
        thread: ThreadPoolExecutor,
    ) -> list[Result]:
        """Return `work` of the texts, done on a thread in turns with other callers."""
        self._batcher.admit(0)
        results: list[Result] = []
        loop = asyncio.get_running_loop()
        for start in range(0, len(texts), _TEXTS_PER_CALL):
            some = texts[start : start + _TEXTS_PER_CALL]
            results += await loop.run_in_executor(thread, work, some)
        return results
