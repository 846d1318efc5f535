"""How much of an index a search asks to look at, and whether its collection can have that index."""

from deployments.stores.content import invalid
from deployments.types import IndexSettings, SearchRequest


def check_effort(request: SearchRequest, settings: IndexSettings) -> None:
    """Raise InvalidRequest where `nprobe` or `ef_search` can never have an effect."""
    for name, kind in (("nprobe", "ivfpq"), ("ef_search", "hnsw")):
        if getattr(request, name) is not None and settings.kind not in ("auto", kind):
            raise invalid(
                f"`{name}` is for {kind} indexes; this collection's is {settings.kind}", name
            )
