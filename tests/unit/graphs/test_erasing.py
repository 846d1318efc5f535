"""Erasing over fake replicas: each place is cleaned and marked, whatever becomes of the others."""

from typing import Any

import pytest

from deployments.errors import StoreUnavailable
from deployments.types import PLACES, ErasedPart, Erasure, ErasureScope, Place
from graphs import erasing as erasing_module
from graphs.erasing import MAX_ATTEMPTS, Erasing
from graphs.handles import Deadline

SCOPE = ErasureScope(tenant="default", collection="c")


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


def clean(erasure: Erasure) -> set[str]:
    return {place for place, time in erasure.places.items() if time}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing_module, "RETRY_PAUSE_S", 0.01)


async def test_every_place_is_cleaned_and_marked() -> None:
    shards = FakeShards()
    receipt = await Erasing(shards).erase(SCOPE, Deadline(5), 5)  # type: ignore[arg-type]
    assert clean(receipt) == set(PLACES)
    assert receipt.completed_at is not None
    assert ("purge", ["col_1"]) in shards.calls


async def test_a_place_that_fails_keeps_no_other_from_being_clean() -> None:
    shards = FakeShards({"vacuum"})
    erasing = Erasing(shards)  # type: ignore[arg-type]
    receipt = await erasing.erase(SCOPE, Deadline(5), 5)
    assert clean(receipt) == {"indexes", "snapshots"}
    assert [method for method, *_ in shards.calls].count("vacuum") == MAX_ATTEMPTS
    shards.failing.clear()
    await erasing._begin(receipt)  # what `resume` does
    assert clean(await erasing.receipt("default", "era_1", Deadline(5))) == set(PLACES)
