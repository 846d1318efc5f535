"""Token counts as OpenAI clients read them."""

from typing import TypedDict

from deployments.ingress.generation import Answer


class Usage(TypedDict):
    """How many tokens a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


def usage_of(answer: Answer) -> Usage:
    """Return the token counts of an answer."""
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }
