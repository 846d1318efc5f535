"""What every engine refuses before it takes a request. It knows no engine."""

from collections.abc import Iterable

from deployments.engines.generation.base import EngineRequest
from deployments.errors import ContextTooLong, InvalidRequest, ModelNotFound, Overloaded


def check_tokens(token_ids: Iterable[int], vocab_size: int, param: str) -> None:
    """Refuse a token that does not exist; in a prompt it would kill whoever computes.

    Raises:
        InvalidRequest: names `param`.
    """
    for token in token_ids:
        if not 0 <= token < vocab_size:
            refused = InvalidRequest(f"the model has no token {token}")
            refused.param = param
            raise refused


def check_length(request: EngineRequest, context_length: int) -> int:
    """Return how many tokens the request may have.

    Raises:
        ContextTooLong: prompt and output do not fit the context.
    """
    max_tokens = request.sampling.max_tokens
    assert max_tokens is not None, "the replica sets max_tokens"
    if len(request.token_ids) + max_tokens > context_length:
        raise ContextTooLong(
            f"the prompt has {len(request.token_ids)} tokens and {max_tokens} were asked for, "
            f"but the model's context holds {context_length}"
        )
    return max_tokens


def refused_adapter(message: str) -> InvalidRequest:
    """Return the error for an adapter that cannot be served."""
    error = InvalidRequest(message)
    error.param = "adapter"
    return error


def no_adapter() -> ModelNotFound:
    """Return the error for an adapter that is not attached."""
    error = ModelNotFound("no adapter with this id is loaded; see GET /v1/models")
    error.param = "model"
    return error


def check_queue(num_queued: int, max_queued: int) -> None:
    """Refuse when the queue is full.

    Raises:
        Overloaded: with when to come again.
    """
    if num_queued >= max_queued:
        overloaded = Overloaded("the generation queue is full")
        overloaded.retry_after_s = 1
        raise overloaded
