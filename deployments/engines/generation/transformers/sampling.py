"""Chooses the next token of each request that asks for more than the best one.

It is the library's extension point for logits. Each request has its own state and its own stream of
random numbers, so its text does not depend on what else is in the batch. The choice is left in the
row as the only finite score, from where the library's greedy step picks it up; a batch of greedy
requests is not touched at all.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.continuous_batching.requests import FutureRequestState
from transformers.generation.logits_process import LogitsProcessorList

from deployments.engines.generation.transformers.grammar import Matcher
from deployments.types import SamplingParams


@dataclass(frozen=True, slots=True)
class Alternatives:
    """A token's log-probability and the likeliest tokens with theirs, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(slots=True)
class Sampler:
    """The sampling state of one request. Used by the generation thread, read by the event loop."""

    params: SamplingParams
    prompt: Sequence[int]
    matcher: Matcher | None = None
    logprobs: list[Alternatives] = field(default_factory=list)
    _random: random.Random = field(init=False)
    _counts: dict[int, int] = field(default_factory=dict)
    _bias: tuple[torch.Tensor, torch.Tensor] | None = None
    _prompt_ids: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self._random = random.Random(self.params.seed)  # noqa: S311 - not for secrets

    @property
    def is_needed(self) -> bool:
        """Return whether the request asks for more than the best token."""
        params = self.params
        return (
            params.heat > 0
            or params.logprobs is not None
            or bool(params.logit_bias)
            or self._has_penalties
            or self.matcher is not None
        )

    @property
    def _has_penalties(self) -> bool:
        params = self.params
        return (
            params.repetition_penalty != 1.0
            or params.presence_penalty != 0.0
            or params.frequency_penalty != 0.0
        )

    def choose(self, scores: torch.Tensor) -> int:
        """Return the next token and remember it; `scores` float32[vocab] may be changed."""
        raw = scores.clone() if self.params.logprobs is not None else None
        self._adjust(scores)
        token = self._draw(scores) if self.params.heat > 0 else int(scores.argmax())
        if raw is not None:
            self.logprobs.append(self._alternatives(raw, token))
        if self._has_penalties:
            self._counts[token] = self._counts.get(token, 0) + 1
        if self.matcher is not None:
            self.matcher.accept(token)
        return token

    def _adjust(self, scores: torch.Tensor) -> None:
        """Apply penalties, bias and grammar in place."""
        params = self.params
        if params.repetition_penalty != 1.0:
            self._penalise_repetition(scores, params.repetition_penalty)
        if self._counts and (params.presence_penalty or params.frequency_penalty):
            ids = torch.tensor(list(self._counts), device=scores.device)
            counts = torch.tensor(list(self._counts.values()), device=scores.device)
            scores[ids] -= params.presence_penalty + params.frequency_penalty * counts
        if params.logit_bias:
            ids, values = self._bias_tensors(scores)
            scores[ids] += values
        if self.matcher is not None:
            self.matcher.mask(scores)

    def _penalise_repetition(self, scores: torch.Tensor, penalty: float) -> None:
        """Divide positive scores of seen tokens by the penalty and multiply negative ones.

        Source: Keskar et al. 2019, CTRL, section 4.1; the sign rule is transformers'.
        """
        if self._prompt_ids is None:
            self._prompt_ids = torch.tensor(sorted(set(self.prompt)), device=scores.device)
        output = torch.tensor(list(self._counts), dtype=torch.long, device=scores.device)
        # A token in both is written twice, with the same value.
        seen = torch.cat([self._prompt_ids, output])
        values = scores[seen]
        scores[seen] = torch.where(values > 0, values / penalty, values * penalty)

    def _bias_tensors(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._bias is None:
            ids, values = zip(*self.params.logit_bias, strict=True)
            self._bias = (
                torch.tensor(ids, device=scores.device),
                torch.tensor(values, dtype=scores.dtype, device=scores.device),
            )
        return self._bias

    def _draw(self, scores: torch.Tensor) -> int:
        """Draw from the softmax of the scores, cut by top_k, top_p and min_p in this order."""
        params = self.params
        scores = scores / params.heat
        ids: torch.Tensor | None = None
        if 0 < params.top_k < scores.numel():
            scores, ids = scores.topk(params.top_k)
        probabilities = scores.softmax(-1)
        if params.top_p < 1.0:
            kept = _nucleus(probabilities, params.top_p)
            probabilities = probabilities[kept]
            ids = kept if ids is None else ids[kept]
        if params.min_p > 0.0:
            cut = probabilities * (probabilities >= params.min_p * probabilities.max())
            probabilities = cut
        cumulative = probabilities.cumsum(-1, dtype=torch.float64)
        target = self._random.random() * float(cumulative[-1])
        index = int(torch.searchsorted(cumulative, target, right=True))
        index = min(index, cumulative.numel() - 1)
        return index if ids is None else int(ids[index])

    def _alternatives(self, raw: torch.Tensor, token: int) -> Alternatives:
        logprobs = raw.log_softmax(-1)
        count = self.params.logprobs or 0
        values, ids = logprobs.topk(count)
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        return Alternatives(token, float(logprobs[token]), top)


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the indices of the fewest likeliest tokens whose probabilities reach `top_p`.

    Only tokens of at least (1 - top_p) / vocab are sorted: all others together weigh less than
    1 - top_p, so none of them can be in the nucleus. This is some 30 times faster than sorting all.
    """
    floor = (1.0 - top_p) / probabilities.numel()
    candidates = (probabilities >= floor).nonzero().squeeze(-1)
    values, order = probabilities[candidates].sort(descending=True, stable=True)
    before = values.cumsum(-1) - values
    count = max(1, int((before < top_p).sum()))
    return candidates[order[:count]]


class SamplingProcessor(ContinuousBatchingLogitsProcessorList):
    """The library's logits processing, replaced by one sampler per request."""

    def __init__(self) -> None:
        super().__init__(LogitsProcessorList())
        self._samplers: dict[str, Sampler] = {}
        self._rows: list[tuple[int, Sampler]] = []

    def add(self, request_id: str, sampler: Sampler) -> None:
        """Sample a request with its own state from now on."""
        self._samplers[request_id] = sampler

    def remove(self, request_id: str) -> None:
        """Forget a request."""
        self._samplers.pop(request_id, None)

    def prepare_tensor_args(
        self, requests_in_batch: list[FutureRequestState], arg_storage: torch.Tensor
    ) -> torch.Tensor:
        """Note which rows of the coming logits belong to requests that need sampling."""
        due = [request.state.request_id for request in requests_in_batch if request.has_new_token]
        found = ((row, self._samplers.get(request_id)) for row, request_id in enumerate(due))
        self._rows = [(row, sampler) for row, sampler in found if sampler is not None]
        self.do_processing = bool(self._rows)
        return arg_storage

    def __call__(self, input_ids: Any, scores: torch.Tensor, logits_processor_args: Any) -> Any:
        """Leave the choice of each noted row as its highest score."""
        for row, sampler in self._rows:
            token = sampler.choose(scores[row])
            scores[row, token] = torch.inf
        return scores
