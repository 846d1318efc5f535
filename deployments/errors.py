"""The error tree: every failure a caller can see, with its code, HTTP status and retry advice.

Construct with one positional message only; optional context is set as attributes afterwards. An
exception with another signature does not survive pickling across a Serve handle.

It does not know how an error is encoded (``ingress/errors.py`` does that).
"""


class RagError(Exception):
    """Anything that went wrong inside ragserve and has no better name."""

    code = "internal_error"
    status = 500
    retryable = False

    def __init__(self, message: str = "internal error") -> None:
        super().__init__(message)
        self.message = message
        self.param: str | None = None
        self.retry_after_s: int | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the message and the attributes, whatever the subclass adds."""
        return (type(self), (self.message,), self.__dict__)


class InvalidRequest(RagError):
    """The request is malformed, out of bounds, or asks for what the engine cannot do."""

    code = "invalid_request"
    status = 400


class ContextTooLong(InvalidRequest):
    """The prompt and the tokens asked for do not fit the model's context."""

    code = "context_length_exceeded"


class Unauthenticated(RagError):
    """No valid bearer key came with the request."""

    code = "invalid_api_key"
    status = 401


class Forbidden(RagError):
    """The key is valid but does not cover what was asked."""

    code = "forbidden"
    status = 403


class SecondFactorRequired(Forbidden):
    """What was asked can hurt: a one-time code has to come with it."""

    code = "second_factor_required"


class SecondFactorInvalid(Forbidden):
    """The one-time code is wrong, or was used already."""

    code = "second_factor_invalid"


class NotFound(RagError):
    """The named thing does not exist or is not visible to this key."""

    code = "not_found"
    status = 404


class ModelNotFound(NotFound):
    """No loaded model, alias or collection has this model id."""

    code = "model_not_found"


class ModelUnavailable(RagError):
    """The model exists, but does not run now: it is being loaded, or has failed."""

    code = "model_unavailable"
    status = 503
    retryable = True


class InsufficientResources(RagError):
    """The machines have too little memory, or too few processors or GPUs free, for a model."""

    code = "insufficient_resources"
    status = 507


class CollectionNotFound(NotFound):
    """No collection has this name."""

    code = "collection_not_found"


class DocumentNotFound(NotFound):
    """The collection holds no document with this id."""

    code = "document_not_found"


class Conflict(RagError):
    """The thing exists already, with other settings."""

    code = "conflict"
    status = 409


class IdempotencyMismatch(InvalidRequest):
    """An `Idempotency-Key` came with another request than the first time."""

    code = "idempotency_mismatch"
    status = 422


class PayloadTooLarge(InvalidRequest):
    """The body, or one document in it, is larger than the configured limit."""

    code = "payload_too_large"
    status = 413


class UnreadableDocument(InvalidRequest):
    """A file could not be turned into text: damaged, encrypted, or of an unknown kind."""

    code = "unreadable_document"
    status = 422


class UnreadableModel(InvalidRequest):
    """A model's files are damaged, incomplete, or hold what is not loaded here."""

    code = "unreadable_model"
    status = 422


class RateLimited(RagError):
    """The caller exceeded its own limit."""

    code = "rate_limit_exceeded"
    status = 429
    retryable = True


class SecondFactorLocked(RateLimited):
    """Too many one-time codes were wrong."""

    code = "second_factor_locked"


class EngineFailed(RagError):
    """A model engine died or answered with an error while it worked on the request."""

    code = "engine_failed"
    status = 502
    retryable = True


class StoreUnavailable(RagError):
    """The database or an index did not answer; safe to retry."""

    code = "store_unavailable"
    status = 503
    retryable = True


class DatabaseDamaged(RagError):
    """What is stored is not what was written, and asking again does not help."""

    code = "database_damaged"


class Overloaded(RagError):
    """Every queue that could take the request is full."""

    code = "overloaded"
    status = 503
    retryable = True


class NoReplica(Overloaded):
    """No replica runs: none is wanted while nobody asks, or the first one is still starting."""


class DeadlineExceeded(RagError):
    """The request did not finish before its deadline; its work has been stopped."""

    code = "deadline_exceeded"
    status = 504
    retryable = True
