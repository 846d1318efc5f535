"""Which addresses may ask: of everybody, of a path, and of a key."""

from collections.abc import Sequence
from functools import lru_cache

from deployments.config import AddressArgs
from deployments.errors import Forbidden
from deployments.ingress.peer import Address, is_in
from deployments.stores.grants import Network, networks

_networks = lru_cache(1024)(networks)


class Addresses:
    """The lists of one configuration. Every refusal reads the same."""

    def __init__(self, args: AddressArgs) -> None:
        self._denied = networks(args.deny)
        self._allowed = networks(args.allow)
        self._metrics = networks(args.metrics)
        # The longest prefix that a path begins with counts, alone.
        self._routes = sorted(
            ((prefix, networks(listed)) for prefix, listed in args.routes.items()),
            key=lambda route: -len(route[0]),
        )

    def check(self, address: Address, path: str) -> None:
        """Raise Forbidden unless everybody's lists, and the path's, allow the address."""
        if self._denied and is_in(address, self._denied):
            raise refused()
        if self._allowed and not is_in(address, self._allowed):
            raise refused()
        for prefix, listed in self._routes:
            if path.startswith(prefix):
                _require(address, listed)
                return

    def may_scrape(self, address: Address) -> bool:
        """Return whether metrics are shown to the address without a key."""
        return is_in(address, self._metrics)


def check_key(address: Address, listed: tuple[str, ...] | None) -> None:
    """Raise Forbidden unless a key works from the address; None: from everywhere."""
    if listed is not None:
        _require(address, _networks(listed))


def refused() -> Forbidden:
    """Return the error; it does not say which list it was."""
    return Forbidden("this is not allowed from your address")


def _require(address: Address, listed: Sequence[Network]) -> None:
    if not is_in(address, listed):
        raise refused()
