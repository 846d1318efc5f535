"""Answers that were computed before, or are being computed: nothing is computed twice at once.

What is kept is found by a keyed digest of all that the answer depends on, its tenant first, so none
is found by another tenant. It does not know HTTP, nor where answers are kept.
"""

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from deployments.ingress.caching.event_codec import decoded, encoded
from deployments.ingress.caching.recording import Recording
from deployments.ingress.caching.use import BYPASS, HIT, MISS, SHARED, CacheUse, Outcome
from deployments.ingress.metrics import Metrics
from deployments.stores.responses.store import ResponseStore
from deployments.types import AnswerEvent, Basis, Finished, GenerationRequest, Retrieval

Events = AsyncGenerator[AnswerEvent]


class AnswerCache:
    """Of one ingress replica."""

    def __init__(
        self, store: ResponseStore, secret: bytes, metrics: Metrics, *, max_entry_bytes: int
    ) -> None:
        """Take where answers are kept.

        Args:
            store: of the answers.
            secret: of the installation, up to 64 bytes; digests are keyed with it.
            metrics: where outcomes are counted.
            max_entry_bytes: what is larger is not kept.
        """
        self._store = store
        self._secret = secret
        self._metrics = metrics
        self._max_entry_bytes = max_entry_bytes
        self._running: dict[str, Recording] = {}
        self._keeping: set[asyncio.Task[None]] = set()
        self._epoch = 0

    def key(
        self,
        tenant: str,
        basis: Basis,
        request: GenerationRequest,
        retrieval: Retrieval | None,
    ) -> str:
        """Return what an answer is found by, in hexadecimal."""
        asked = dataclasses.replace(request, request_id="")
        depends = repr((tenant, basis, asked, retrieval)).encode()
        return hashlib.blake2b(depends, key=self._secret, person=b"answer").hexdigest()

    async def events(
        self, key: str, use: CacheUse, compute: Callable[[], Events], num_choices: int
    ) -> Events:
        """Yield the events of an answer: kept, of a computation under way, or of a new one.

        Args:
            key: of `key`.
            use: where the outcome is noted.
            compute: returns the events of a new one, whose failures are raised here.
            num_choices: that a whole answer has.
        """
        recording = self._joinable(key, use)
        if recording is None:
            kept = None if use.wish == "refresh" else await self._kept(key)
            if kept is not None:
                self._note(use, HIT)
                for event in kept:
                    yield event
                return
            recording = self._joinable(key, use)  # one may have begun meanwhile
        if recording is None:
            recording = self._begun(key, use, compute, num_choices)
            self._note(use, MISS)
        else:
            self._note(use, HIT if recording.has_ended else SHARED)
        async with aclosing(recording.read()) as events:  # type: ignore[type-var]
            async for event in events:
                yield event

    def bypass(self, use: CacheUse) -> None:
        """Say that a request is computed whatever is kept."""
        self._note(use, BYPASS)

    async def forget(self) -> None:
        """Remove every answer; what is being computed is not kept.

        Raises:
            StoreUnavailable: answers may still be there.
        """
        self._epoch += 1
        self._running.clear()
        await asyncio.gather(*self._keeping)
        await self._store.clear()

    async def close(self) -> None:
        """Let go of what the store holds open."""
        await self._store.close()

    async def _kept(self, key: str) -> list[AnswerEvent] | None:
        data = await self._store.get(key)
        return None if data is None else decoded(data)

    def _joinable(self, key: str, use: CacheUse) -> Recording | None:
        recording = self._running.get(key)
        is_wanted = recording is not None and recording.may_be_joined and use.wish != "refresh"
        return recording if is_wanted else None

    def _begun(
        self, key: str, use: CacheUse, compute: Callable[[], Events], num_choices: int
    ) -> Recording:
        epoch = self._epoch

        def end() -> None:
            if epoch == self._epoch and _is_whole(recording, num_choices):
                data = encoded(recording.events)
                if len(data) <= self._max_entry_bytes:
                    keeping = asyncio.ensure_future(self._keep(key, recording, data, use.ttl_s))
                    self._keeping.add(keeping)
                    keeping.add_done_callback(self._keeping.discard)
                    return
            self._drop(key, recording)

        recording = self._running[key] = Recording(compute(), end)
        return recording

    async def _keep(self, key: str, recording: Recording, data: bytes, ttl_s: float) -> None:
        try:
            await self._store.put(key, data, ttl_s)
        finally:
            self._drop(key, recording)

    def _drop(self, key: str, recording: Recording) -> None:
        if self._running.get(key) is recording:
            del self._running[key]

    def _note(self, use: CacheUse, outcome: Outcome) -> None:
        use.note(outcome)
        self._metrics.count_cached(outcome)


def _is_whole(recording: Recording, num_choices: int) -> bool:
    num_finished = sum(isinstance(event, Finished) for event in recording.events)
    return recording.has_ended and num_finished == num_choices
