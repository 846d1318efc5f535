"""Bounds on what a key can be given."""

import ipaddress
from collections.abc import Sequence

from deployments.stores.content import check_text, invalid, is_collection_name
from deployments.types.access import LIMITS, SCOPES, Grants

MAX_NAMES = 256
MAX_MODEL_CHARS = 256
MAX_LIMIT = 1_000_000_000

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def check_grants(grants: Grants) -> None:
    """Raise InvalidRequest, which names the field, unless a key can have these."""
    unknown = [scope for scope in grants.scopes if scope not in SCOPES]
    if unknown:
        raise invalid(f"there is no scope {unknown[0]!r}; there are {', '.join(SCOPES)}", "scopes")
    if not grants.scopes:
        raise invalid("a key without a scope can do nothing", "scopes")
    _check_count(grants.models, "models")
    _check_count(grants.collections, "collections")
    _check_count(grants.addresses, "addresses")
    for model in grants.models or ():
        check_text(model, "models")
        if not 0 < len(model) <= MAX_MODEL_CHARS:
            raise invalid(f"a model's id has 1 to {MAX_MODEL_CHARS} characters", "models")
    for name in grants.collections or ():
        if not is_collection_name(name):
            raise invalid("no collection can have this name", "collections")
    networks(grants.addresses or ())
    for name in LIMITS:
        limit = getattr(grants.limits, name)
        if limit is not None and not 0 < limit <= MAX_LIMIT:
            raise invalid(f"a limit is 1 to {MAX_LIMIT}", f"limits.{name}")


def networks(addresses: Sequence[str]) -> tuple[Network, ...]:
    """Return the networks that addresses or CIDRs name.

    Raises:
        InvalidRequest: one names none, or has bits set behind its prefix, which is a slip.
    """
    found = []
    for address in addresses:
        try:
            found.append(ipaddress.ip_network(address))
        except ValueError:
            message = f"{address[:64]!r} is no address and no network such as 10.0.0.0/8"
            raise invalid(message, "addresses") from None
    return tuple(found)


def _check_count(names: Sequence[str] | None, field: str) -> None:
    if names is not None and not 0 < len(names) <= MAX_NAMES:
        raise invalid(f"1 to {MAX_NAMES} of them, or none for every one", field)
