"""Feedback, on every database."""

from deployments.stores.database import Database
from deployments.stores.feedback import FeedbackStore, erase_feedback
from deployments.stores.ids import new_id
from deployments.types.feedback import Feedback


def said(request_id: str, rating: int, **given) -> Feedback:
    values = {"tenant": "acme", "key_id": "key_1", "scale": "thumbs", "created_at": 5.25, **given}
    return Feedback(id=new_id("fbk"), request_id=request_id, rating=rating, **values)


def found(store: FeedbackStore, **given) -> list[Feedback]:
    wanted = {"limit": 10, "before": "", "request_id": "", **given}
    return store.find("acme", **wanted)


def test_feedback_comes_back_newest_first_in_pages(database: Database):
    store = FeedbackStore(database)
    given = [said(f"r{i}", 1, comment="good", corrected_output="better") for i in range(3)]
    for one in given:
        store.put(one)
    assert found(store) == given[::-1]
    assert found(store, limit=2) == given[:0:-1]
    assert found(store, before=given[1].id) == given[:1]
    assert found(store, request_id="r1") == given[1:2]
    assert store.find("other", limit=10, before="", request_id="") == []


def test_last_word_of_a_key_counts(database: Database):
    store = FeedbackStore(database)
    last, other = said("r", -1), said("r", 1, key_id="key_2")
    for one in (said("r", 1), other, last):
        store.put(one)
    assert set(found(store)) == {last, other}


def test_erased_person_has_said_nothing(database: Database):
    store = FeedbackStore(database)
    kept = said("r2", 1)
    store.put(said("r1", 1, subject="ann", comment="my name is Ann"))
    store.put(kept)
    with database.write() as connection:
        assert erase_feedback(connection, "acme", "ann") == 1
    assert found(store) == [kept]


def test_scores_of_both_scales_agree():
    thumbs = [said("r", rating).score for rating in (-1, 0, 1)]
    stars = [said("r", rating, scale="stars").score for rating in range(1, 6)]
    assert thumbs == [-1.0, 0.0, 1.0]
    assert stars == [-1.0, -0.5, 0.0, 0.5, 1.0]
