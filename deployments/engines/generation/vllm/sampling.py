"""How a request's sampling is said to vLLM, and its log-probabilities to us."""

from collections.abc import Mapping, Sequence
from typing import Any

from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.sampling_params import SamplingParams as VllmParams

from deployments.engines.generation.transformers.sampling import Alternatives
from deployments.types import Grammar, SamplingParams


def params_of(
    sampling: SamplingParams, max_tokens: int, eos_token_ids: frozenset[int]
) -> VllmParams:
    """Return vLLM's parameters. Stop strings are not among them: our text stream finds them."""
    return VllmParams(
        max_tokens=max_tokens,
        temperature=sampling.heat,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed,
        logprobs=sampling.logprobs,
        logit_bias=dict(sampling.logit_bias) or None,
        stop_token_ids=sorted(eos_token_ids),
        structured_outputs=_grammar(sampling.grammar),
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def _grammar(grammar: Grammar | None) -> StructuredOutputsParams | None:
    if grammar is None:
        return None
    if grammar.kind == "regex":
        return StructuredOutputsParams(regex=grammar.source)
    if grammar.kind == "json_object":
        return StructuredOutputsParams(json={"type": "object"})
    return StructuredOutputsParams(json=grammar.source)


def alternatives(
    token_ids: Sequence[int], logprobs: Sequence[Mapping[int, Any]] | None, number: int | None
) -> list[Alternatives]:
    """Return the log-probabilities of one step's tokens, each with the `number` likeliest."""
    if logprobs is None or number is None:
        return []
    return [
        Alternatives(token, found[token].logprob, _likeliest(found, number))
        for token, found in zip(token_ids, logprobs, strict=True)
    ]


def _likeliest(found: Mapping[int, Any], number: int) -> tuple[tuple[int, float], ...]:
    ranked = sorted(found.items(), key=lambda item: item[1].rank)
    return tuple((token, one.logprob) for token, one in ranked if one.rank <= number)[:number]
