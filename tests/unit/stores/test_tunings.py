"""Tunings as rows: the queue's bound, attempts, cancelling, and what is kept over a restart."""

import pytest

from deployments.errors import Conflict, NotFound, RateLimited
from deployments.stores.database import Database
from deployments.stores.tunings import TuningStore, new_tuning_id
from deployments.types import (
    MAX_CURVE,
    CurvePoint,
    Training,
    TuningProgress,
    TuningSpec,
    TuningState,
    thinned,
)

TRAINING = Training(targets=("q_proj", "v_proj"), zero_stage=3, workers=2)


@pytest.fixture
def store(database: Database) -> TuningStore:
    return TuningStore(database)


def spec(version: str = "1") -> TuningSpec:
    return TuningSpec(
        name="facts",
        version=version,
        base="embedded:m",
        location="embedded:m",
        training=TRAINING,
        num_steps=9,
        memory_bytes=2**40,
    )


def add(store: TuningStore, version: str = "1", max_under_way: int = 4) -> TuningState:
    return store.add(spec(version), new_tuning_id(), max_under_way)


def begun(store: TuningStore, version: str = "1") -> TuningState:
    state = store.begin(add(store, version))
    assert state is not None
    return state


def test_tuning_is_kept_as_it_was_asked_for(store: TuningStore):
    state = add(store)
    assert (state.spec, state.phase, state.attempt) == (spec(), "queued", 0)
    assert store.get(state.id) == state
    assert store.under_way() == [state]


def test_unknown_tuning_is_not_found(store: TuningStore):
    with pytest.raises(NotFound):
        store.get(new_tuning_id())
    with pytest.raises(NotFound):
        store.cancel(new_tuning_id())


def test_full_queue_takes_no_more_until_one_ends(store: TuningStore):
    first = begun(store, "1")
    with pytest.raises(RateLimited) as caught:
        add(store, "2", max_under_way=1)
    assert caught.value.retry_after_s
    assert add(store, "2", max_under_way=2).phase == "queued"
    assert store.end(first, "failed")
    with pytest.raises(RateLimited):
        add(store, "3", max_under_way=1)
    assert add(store, "3", max_under_way=2).phase == "queued"


@pytest.mark.parametrize("phase", ["completed", "failed", "cancelled"])
def test_version_is_made_once(store: TuningStore, phase: str):
    state = begun(store)
    with pytest.raises(Conflict):
        add(store)
    assert store.end(state, phase, "why")  # type: ignore[arg-type]
    if phase == "completed":
        with pytest.raises(Conflict):
            add(store)
    else:
        assert add(store).phase == "queued"
    ended = store.get(state.id)
    assert (ended.phase, ended.error) == (phase, "why")
    assert ended.completed_at is not None


def test_earlier_attempt_is_not_heard(store: TuningStore):
    first = begun(store)
    second = store.begin(first)
    assert second is not None
    assert (second.attempt, second.started_at) == (2, first.started_at)
    assert not store.note(first, TuningProgress(step=5))
    assert not store.end(first, "failed", "late")
    assert store.begin(first) is None
    assert store.get(first.id) == second


def test_progress_is_kept_and_is_no_change(store: TuningStore):
    state = begun(store)
    revision = store.revision()
    progress = TuningProgress(
        step=3,
        seconds=1.5,
        curve=(CurvePoint(1, 2.5), CurvePoint(3, 1.25)),
        loss_before=3.0,
        loss_after=0.5,
    )
    assert store.note(state, progress)
    assert store.get(state.id).progress == progress
    assert store.revision() == revision


def test_cancel_ends_what_waits_and_marks_what_runs(store: TuningStore):
    running, waiting = begun(store, "1"), add(store, "2")
    assert store.cancel(waiting.id).phase == "cancelled"
    marked = store.cancel(running.id)
    assert marked.phase == "cancelling"
    assert store.cancel(running.id) == marked
    assert not store.note(running, TuningProgress(step=1))
    assert store.end(marked, "cancelled")
    assert store.cancel(running.id).phase == "cancelled"
    assert store.under_way() == []


def test_list_has_the_newest_first_and_pages(store: TuningStore):
    ids = [add(store, str(number)).id for number in range(3)]
    assert [one.id for one in store.find(2)] == [ids[2], ids[1]]
    assert [one.id for one in store.find(2, before=ids[1])] == [ids[0]]


def test_every_change_raises_the_revision(store: TuningStore):
    seen = [store.revision()]
    state = add(store)
    seen.append(store.revision())
    begun_ = store.begin(state)
    assert begun_ is not None
    seen.append(store.revision())
    store.cancel(state.id)
    seen.append(store.revision())
    assert seen == sorted(set(seen))


def test_curve_stays_bounded_and_keeps_its_end():
    curve: tuple[CurvePoint, ...] = ()
    for step in range(10_000):
        curve = thinned((*curve, CurvePoint(step, 1.0)))
        assert len(curve) <= MAX_CURVE
        assert curve[-1].step == step
    assert curve[0].step < 200


def test_deleted_tuning_is_gone_and_its_version_can_be_made_again(store: TuningStore):
    state = begun(store)
    with pytest.raises(Conflict):
        store.delete(state.id)
    assert store.end(state, "completed")
    with pytest.raises(Conflict):
        add(store)
    revision = store.revision()
    store.delete(state.id)
    assert store.revision() > revision
    with pytest.raises(NotFound):
        store.delete(state.id)
    assert add(store).phase == "queued"
