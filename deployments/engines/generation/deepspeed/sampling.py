"""One choice for all ranks: the first chooses each token, the others are told."""

from typing import Any

import torch
from torch import distributed
from transformers.generation.continuous_batching.requests import FutureRequestState

from deployments.engines.generation.transformers.sampling import Sampler, SamplingProcessor


class AgreedSampling(SamplingProcessor):
    """Sampling on the first of several ranks.

    Every rank has the same logits, but nobody promises that they are so to the last bit; ranks that
    chose differently would compute different batches from then on, and wait for each other forever.
    """

    def __init__(self, rank: int, size: int) -> None:
        super().__init__()
        self._is_first = rank == 0
        self._is_alone = size == 1

    def add(self, request_id: str, sampler: Sampler) -> None:
        """Sample a request with its own state from now on, where it is this rank that chooses."""
        if self._is_first:
            super().add(request_id, sampler)

    def prepare_tensor_args(
        self, requests_in_batch: list[FutureRequestState], arg_storage: torch.Tensor
    ) -> torch.Tensor:
        """Take part in every step, also where all requests are greedy."""
        super().prepare_tensor_args(requests_in_batch, arg_storage)
        self.do_processing = self.do_processing or not self._is_alone
        return arg_storage

    def __call__(self, input_ids: Any, scores: torch.Tensor, logits_processor_args: Any) -> Any:
        """Leave the first rank's choice for each row as its highest score."""
        if self._is_first:
            scores = super().__call__(input_ids, scores, logits_processor_args)
        if self._is_alone or scores.shape[0] == 0:
            return scores
        tokens = scores.argmax(-1, keepdim=True)
        distributed.broadcast(tokens, src=0)
        return scores.scatter_(1, tokens, torch.inf)
