"""Where webhooks may go: to hosts of the public network, or to networks that the operator names.

A name is resolved once, every address that it has is checked, and the connection goes to an address
that was checked: what the name means a moment later does not matter.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from deployments.config import WebhookArgs
from deployments.errors import InvalidRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a name; raises OSError."""

MAX_URL = 2048
DEFAULT_PORTS = {"https": 443, "http": 80}
FREE_PORTS = range(1024, 65536)
"""Below them are services that are told no webhooks, such as mail."""

NOT_GLOBAL = tuple(
    ipaddress.ip_network(one)
    for one in (
        *("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15"),
        *("224.0.0.0/4", "240.0.0.0/4"),
        *("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64"),
        *("2001::/23", "2002::/16", "3fff::/20", "5f00::/16"),
        *("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
"""Besides what `ipaddress` knows: ways from IPv6 to IPv4, and what is for nobody in particular.

Source: the special-purpose address registries of IANA.
"""


class Refused(Exception):
    """A webhook may not go there; its text is one word for the log of deliveries."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a connection goes: an address that was checked; the certificate is `host`'s."""

    url: httpx.URL
    host: str
    host_header: str


def check_url(url: str, args: WebhookArgs) -> None:
    """Raise InvalidRequest, with `param` `webhook`, for what can be no webhook's URL."""
    try:
        _parsed(url, args)
    except Refused as refused:
        error = InvalidRequest(f"no webhook can go to this URL: {refused}")
        error.param = "webhook"
        raise error from None


class Guard:
    """Finds where the webhooks of an installation may go."""

    def __init__(self, args: WebhookArgs, resolver: Resolver | None = None) -> None:
        """Take what the operator allows, and what resolves names; by default, the host does."""
        self._args = args
        self._resolve = resolver or _Resolver()
        self._networks = tuple(ipaddress.ip_network(one) for one in args.networks)

    async def destination(self, url: str) -> Destination:
        """Return where to connect for a URL; raises Refused."""
        parsed = _parsed(url, self._args)
        port = parsed.port or DEFAULT_PORTS[parsed.scheme]
        host = parsed.raw_host.decode("ascii").strip("[]")
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise Refused("unknown_host") from None
        if not found:
            raise Refused("unknown_host")
        addresses = [_address(one) for one in found]
        if not all(self._is_allowed(one) for one in addresses):
            raise Refused("refused_address")
        return Destination(
            url=parsed.copy_with(host=str(addresses[0])),
            host=host,
            host_header=parsed.netloc.decode("ascii"),
        )

    def _is_allowed(self, address: Address) -> bool:
        if any(address in network for network in self._networks):
            return True
        return is_global(address)


def is_global(address: Address) -> bool:
    """Return whether an address is one host's of the public network."""
    is_special = address.is_multicast or address.is_reserved or address.is_unspecified
    in_registry = any(address in network for network in NOT_GLOBAL)
    return address.is_global and not is_special and not in_registry


def _address(text: str) -> Address:
    try:
        return ipaddress.ip_address(text)  # one with a zone is link-local, and refused as that
    except ValueError:
        raise Refused("refused_address") from None


def _parsed(url: str, args: WebhookArgs) -> httpx.URL:
    if len(url) > MAX_URL or not url.isprintable() or " " in url or "\\" in url:
        raise Refused("malformed_url")
    try:
        parsed = httpx.URL(url)
        port = parsed.port
    except (httpx.InvalidURL, ValueError, UnicodeError):
        raise Refused("malformed_url") from None
    if parsed.scheme not in ("https", *(("http",) if args.allow_http else ())):
        raise Refused("refused_scheme")
    if not parsed.host or parsed.fragment:
        raise Refused("malformed_url")
    if parsed.userinfo:
        raise Refused("user_info")
    if port is not None and port not in (*DEFAULT_PORTS.values(), *FREE_PORTS):
        raise Refused("refused_port")
    return parsed


class _Resolver:
    """The host's own; its threads are apart, for a name may take long."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="webhook-names")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(entry[4][0]) for entry in found]
