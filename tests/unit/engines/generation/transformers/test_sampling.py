"""Every sampling parameter changes what is chosen, in the way its name says."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.engines.generation.transformers.sampling import Sampler, _nucleus
from deployments.types import SamplingParams

SCORES = torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0])


def sampler(prompt: tuple[int, ...] = (), **params: Any) -> Sampler:
    return Sampler(SamplingParams(**{"temperature": 1.0, "seed": 1, **params}), prompt)


def draws(num: int = 400, **params: Any) -> Counter[int]:
    chooser = sampler(**params)
    return Counter(chooser.choose(SCORES.clone()) for _ in range(num))


def test_greedy_without_extras_needs_no_sampling() -> None:
    assert not sampler(temperature=0.0).is_needed
    assert sampler().is_needed


def test_same_seed_draws_the_same_and_another_differs() -> None:
    def sequence(seed: int | None) -> list[int]:
        chooser = sampler(seed=seed)
        return [chooser.choose(SCORES.clone()) for _ in range(30)]

    assert sequence(1) == sequence(1)
    assert sequence(1) != sequence(2)
    assert sequence(None) != sequence(None)


def test_draws_follow_the_softmax() -> None:
    found = draws(4000)
    expected = SCORES.softmax(-1)
    assert all(abs(found[i] / 4000 - float(expected[i])) < 0.03 for i in range(5))


def test_low_temperature_sharpens() -> None:
    assert draws(temperature=0.2)[0] > draws(temperature=2.0)[0] + 100


@pytest.mark.parametrize(
    ("params", "allowed"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.6}, {0}),
        ({"top_p": 0.7}, {0, 1}),
        ({"min_p": 0.3}, {0, 1}),
        ({"top_k": 3, "top_p": 0.95, "temperature": 5.0}, {0, 1, 2}),
    ],
)
def test_cuts_leave_exactly_the_likeliest(params: dict[str, Any], allowed: set[int]) -> None:
    assert set(draws(**params)) == allowed


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.99))
def test_nucleus_equals_sorting_everything(seed: int, top_p: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = (torch.randn(500, generator=generator) * 3).softmax(-1)
    values, order = probabilities.sort(descending=True, stable=True)
    count = max(1, int((values.cumsum(-1) - values < top_p).sum()))
    assert _nucleus(probabilities, top_p).tolist() == order[:count].tolist()


def test_repetition_penalty_covers_prompt_and_output() -> None:
    chooser = sampler(prompt=(0,), temperature=0.0, repetition_penalty=10.0)
    assert [chooser.choose(SCORES.clone()) for _ in range(3)] == [1, 2, 0]


def test_presence_penalty_covers_the_output_once() -> None:
    chooser = sampler(prompt=(0,), temperature=0.0, presence_penalty=1.5)
    assert [chooser.choose(SCORES.clone()) for _ in range(4)] == [0, 1, 0, 0]


def test_frequency_penalty_grows_with_the_count() -> None:
    chooser = sampler(temperature=0.0, frequency_penalty=0.6)
    assert [chooser.choose(SCORES.clone()) for _ in range(4)] == [0, 0, 1, 0]


def test_logit_bias_bans_and_forces() -> None:
    assert set(draws(logit_bias=((0, -100.0), (1, -100.0), (2, 100.0)))) == {2}


def test_logprobs_are_of_the_raw_distribution() -> None:
    chooser = sampler(temperature=0.5, logprobs=2, logit_bias=((4, 100.0),))
    assert chooser.choose(SCORES.clone()) == 4
    raw = SCORES.log_softmax(-1).tolist()
    (found,) = chooser.logprobs
    assert found.token_id == 4
    assert found.logprob == pytest.approx(raw[4])
    assert [token for token, _ in found.top] == [0, 1]
    assert [value for _, value in found.top] == pytest.approx(raw[:2])
