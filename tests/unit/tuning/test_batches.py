"""Which examples make which step on which worker: each one once an epoch, whoever takes part."""

import pytest

from deployments.tuning.batches import batch_of, chosen, learning_rate, num_steps
from deployments.tuning.encoding import IGNORED, Encoded


@pytest.mark.parametrize(("number", "size"), [(1, 1), (7, 3), (8, 4), (5, 100)])
def test_every_epoch_has_each_example_once(number: int, size: int):
    steps = num_steps(number, size, epochs=2)
    found = [chosen(step, number, size, seed=3) for step in range(steps)]
    half = steps // 2
    for epoch in (found[:half], found[half:]):
        assert sorted(place for step in epoch for place in step) == list(range(number))
    assert all(found)


def test_order_follows_the_seed_and_changes_between_epochs():
    first, second = chosen(0, 50, 50, seed=1), chosen(1, 50, 50, seed=1)
    assert first != second
    assert chosen(0, 50, 50, seed=1) == first
    assert chosen(0, 50, 50, seed=2) != first


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_workers_share_all_examples_of_a_step(workers: int):
    examples = [
        Encoded(tuple(range(1, length + 2)), (IGNORED, *range(2, length + 2)))
        for length in (3, 9, 1, 4, 2)
    ]
    batches = [batch_of(examples, worker, workers) for worker in range(workers)]
    assert {batch.num_learned for batch in batches} == {3 + 9 + 1 + 4 + 2}
    labels = [int((batch.labels[:, 1:] != IGNORED).sum()) for batch in batches]
    assert sum(labels) == 19
    for batch in batches:
        assert batch.tokens.shape == batch.attention.shape == batch.labels.shape
        assert ((batch.labels == IGNORED) | (batch.attention == 1)).all()


def test_rate_rises_then_falls_to_nearly_nothing():
    rates = [learning_rate(step, 100, 1.0) for step in range(100)]
    assert max(rates) == 1.0
    assert rates[:5] == sorted(rates[:5])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0 < rates[-1] < 0.02
    assert learning_rate(0, 1, 1.0) == 1.0
