"""Erasing over fake replicas: each place is cleaned and marked, whatever becomes of the others."""

from typing import Any

import pytest

from deployments.errors import EngineFailed, StoreUnavailable
from deployments.types import PLACES, ErasedPart, Erasure, ErasureScope, Place
from graphs import erasing as erasing_module
from graphs.erasing import MAX_ATTEMPTS, Erasing
from graphs.handles import Deadline

SCOPE = ErasureScope(tenant="default", collection="c")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing_module, "RETRY_PAUSE_S", 0.01)


class FakeShards:
    """Keeps one receipt, and fails where it is told to."""

    def __init__(self, failing: set[str] | None = None) -> None:
        self.failing = failing or set()
        self.calls: list[tuple[Any, ...]] = []
        self.places: dict[Place, str | None] = dict.fromkeys(PLACES)

    def _receipt(self) -> Erasure:
        times = [time for time in self.places.values() if time]
        return Erasure(
            id="era_1",
            tenant="default",
            kind="collection",
            parts=(ErasedPart("c", "col_1", 1, 1),),
            places=dict(self.places),
            requested_at="2026-01-01T00:00:00.000000Z",
            completed_at=max(times) if len(times) == len(PLACES) else None,
        )

    async def ask(self, method: str, *args: Any, deadline: Deadline) -> Any:
        self.calls.append((method, *args))
        if method in self.failing:
            raise StoreUnavailable("not now")
        if method == "mark_clean":
            self.places[args[1]] = "2026-01-01T00:00:01.000000Z"
        return self._receipt()

    async def ask_every(self, method: str, *args: Any, deadline: Deadline) -> None:
        self.calls.append((method, *args))
        if method in self.failing:
            raise StoreUnavailable("not now")


async def nothing(deadline: Deadline) -> None:
    """There are no models."""


def clean(erasure: Erasure) -> set[str]:
    return {place for place, time in erasure.places.items() if time}


async def test_every_place_is_cleaned_and_marked() -> None:
    shards, asked = FakeShards(), []

    async def forget(deadline: Deadline) -> None:
        asked.append([call[0] for call in shards.calls])

    erasing = Erasing(shards, forget)  # type: ignore[arg-type]
    receipt = await erasing.erase(SCOPE, Deadline(5), 5)
    assert clean(receipt) == set(PLACES)
    assert receipt.completed_at is not None
    assert ("purge", ["col_1"]) in shards.calls
    [before] = asked
    assert before[0] == "erase", "nothing is forgotten before it was erased"


async def test_a_place_that_fails_once_is_cleaned_in_the_same_go() -> None:
    shards, has_failed = FakeShards(), []

    async def forget(deadline: Deadline) -> None:
        if not has_failed:
            has_failed.append(True)
            raise EngineFailed("a replica was lost")

    receipt = await Erasing(shards, forget).erase(SCOPE, Deadline(5), 5)  # type: ignore[arg-type]
    assert clean(receipt) == set(PLACES)


async def test_caches_that_were_not_emptied_are_not_marked_until_they_are() -> None:
    shards, failures = FakeShards(), iter(range(MAX_ATTEMPTS))

    async def forget(deadline: Deadline) -> None:
        if next(failures, None) is not None:
            raise EngineFailed("a replica was lost")

    erasing = Erasing(shards, forget)  # type: ignore[arg-type]
    receipt = await erasing.erase(SCOPE, Deadline(5), 5)
    assert clean(receipt) == set(PLACES) - {"caches"}
    assert receipt.completed_at is None
    await erasing._begin(receipt)  # what `resume` does
    assert clean(await erasing.receipt("default", "era_1", Deadline(5))) == set(PLACES)


async def test_a_place_that_fails_keeps_no_other_from_being_clean() -> None:
    shards = FakeShards({"vacuum"})
    receipt = await Erasing(shards, nothing).erase(SCOPE, Deadline(5), 5)  # type: ignore[arg-type]
    assert clean(receipt) == {"indexes", "snapshots", "caches"}
