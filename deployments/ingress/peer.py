"""From which address a request comes.

Only the edge can say: it overwrites one header with its peer's address and the installation's
secret. What reaches us without that comes from the connection's other end. A client's own
`X-Forwarded-For` counts only behind proxies that the operator trusts, and of it only what they
wrote: the rightmost address that is none of theirs.
"""

import hmac
import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from deployments.ingress.asgi import Scope, header
from deployments.stores.grants import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PEER = b"x-ragserve-peer"
FORWARDED = b"x-ragserve-forwarded"
MAX_HOPS = 16
UNKNOWN = ipaddress.IPv6Address(0)
"""Stands for an address that cannot be read; no network that is no slip has it."""


class Peers:
    """Tells addresses of requests."""

    def __init__(self, secret: str, trusted: Sequence[Network] = ()) -> None:
        """Take what the edge proves itself with, and the networks of proxies in front of it."""
        self._secret = secret.encode()
        self._trusted = tuple(trusted)

    def address_of(self, scope: Scope) -> Address:
        """Return the address of who sent a request; IPv4 within IPv6 is IPv4."""
        secret, _, said = header(scope, PEER).partition(" ")
        is_edge = hmac.compare_digest(secret.encode("latin-1"), self._secret)
        if not self._secret or not is_edge:
            client = scope.get("client")
            return parsed(client[0] if client else "")
        peer = parsed(said)
        if not is_in(peer, self._trusted):
            return peer
        return self._behind(peer, header(scope, FORWARDED))

    def _behind(self, peer: Address, forwarded: str) -> Address:
        for hop in reversed(forwarded.split(",")[-MAX_HOPS:]):
            address = parsed(hop.strip())
            if address == UNKNOWN:
                return peer  # what is left of here was not written by anybody trusted
            if not is_in(address, self._trusted):
                return address
            peer = address
        return peer


@lru_cache(4096)
def parsed(text: str) -> Address:
    """Return an address; `UNKNOWN` when it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return UNKNOWN
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(address.packed)  # without a zone
    return address


def is_in(address: Address, networks: Sequence[Network]) -> bool:
    """Return whether one of the networks has the address."""
    return any(address in network for network in networks)
