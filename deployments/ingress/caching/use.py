"""How one request uses what was computed before: what it asks for, and what came of it."""

from typing import Literal, get_args

from deployments.ingress.asgi import Scope, header
from deployments.stores.content import invalid

Wish = Literal["", "use", "refresh", "off"]
Outcome = Literal["hit", "shared", "miss", "bypass"]

NAME = b"x-cache"
HIT: Outcome = "hit"
SHARED: Outcome = "shared"
MISS: Outcome = "miss"
BYPASS: Outcome = "bypass"
BEST_FIRST = (HIT, SHARED, MISS, BYPASS)


class CacheUse:
    """Of one request; it may need several answers, and says the worst of their outcomes.

    The header `x-cache` of the request says: nothing, for answers that are deterministic; `use` for
    those that were sampled, too; `refresh` to compute anew and keep that; `off` for neither.
    """

    def __init__(self, wish: Wish, ttl_s: float) -> None:
        self.wish = wish
        self.ttl_s = ttl_s
        self._outcomes: list[Outcome] = []

    @classmethod
    def of(cls, scope: Scope, ttl_s: float) -> "CacheUse":
        """Return what a request asks for; raises InvalidRequest."""
        given = header(scope, NAME).lower()
        for wish in get_args(Wish):
            if given == wish:
                return cls(wish, ttl_s)
        raise invalid("the header x-cache is `use`, `refresh` or `off`", "x-cache")

    @property
    def is_off(self) -> bool:
        """Return whether nothing is looked up or kept."""
        return self.wish == "off" or self.ttl_s <= 0

    def note(self, outcome: Outcome) -> None:
        """Say how one answer was had."""
        self._outcomes.append(outcome)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the response's header; none where no model was asked."""
        if not self._outcomes:
            return []
        return [(NAME, max(self._outcomes, key=BEST_FIRST.index).encode())]
