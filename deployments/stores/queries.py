"""What a search asks, and whether its collection can answer that."""

from deployments.errors import Conflict
from deployments.stores.content import invalid
from deployments.stores.filters import check_filter
from deployments.stores.follower import Follower
from deployments.stores.indexes import Query
from deployments.stores.vectors import ready_vector
from deployments.types import SearchRequest


def check_search(request: SearchRequest, query: Query | None) -> None:
    """Raise InvalidRequest where no collection could answer a search."""
    if request.filter is not None:
        check_filter(request.filter)
    if request.top_k < 1:
        raise invalid("top_k must be at least 1", "top_k")
    if request.vector is not None:
        if request.mode != "dense":
            raise invalid("a ready vector works in dense mode only", "vector")
        return
    if query is None and request.mode != "lexical":
        raise invalid("only lexical search works without a query vector", "mode")
    if query is None and request.min_score is not None:
        raise invalid("min_score bounds the cosine, which needs a query vector", "min_score")


def checked_query(
    follower: Follower, request: SearchRequest, query: Query | None, embedding_model: str | None
) -> Query | None:
    """Return the query vector, if there is one, after making sure that it fits the collection.

    Raises:
        InvalidRequest: the ready vector does not.
        Conflict: the query is another model's.
    """
    if request.vector is not None:
        return ready_vector(request.vector, follower.dim, "vector", follower.metric)
    if query is not None and (len(query), embedding_model) != (
        follower.dim,
        follower.embedding_model,
    ):
        raise Conflict(f"collection {request.collection!r} was embedded with another model")
    return query
