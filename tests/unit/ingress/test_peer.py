"""From where a request comes: whom we believe, and of what we believe nothing."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.ingress.peer import FORWARDED, PEER, UNKNOWN, Peers, parsed
from deployments.stores.grants import networks

SECRET = "5ec2e7"
TRUSTED = networks(["192.0.2.0/24", "2001:db8::/32"])


def scope(peer: str | None = None, forwarded: str = "", client: str = "127.0.0.1") -> Any:
    headers = [(b"x-forwarded-for", b"6.6.6.6"), (b"x-real-ip", b"6.6.6.6")]
    if peer is not None:
        headers.append((PEER, peer.encode()))
    if forwarded:
        headers.append((FORWARDED, forwarded.encode()))
    return {"headers": headers, "client": (client, 1)}


def test_edge_tells_its_peer() -> None:
    peers = Peers(SECRET)
    assert str(peers.address_of(scope(f"{SECRET} 203.0.113.9"))) == "203.0.113.9"
    assert str(peers.address_of(scope(f"{SECRET} ::ffff:203.0.113.9"))) == "203.0.113.9"
    assert str(peers.address_of(scope(f"{SECRET} fe80::1%eth0"))) == "fe80::1"


@pytest.mark.parametrize(
    "said", [None, "", "203.0.113.9", "wrong 203.0.113.9", f"{SECRET}x 1.2.3.4"]
)
def test_a2_nobody_else_does(said: str | None) -> None:
    assert str(Peers(SECRET).address_of(scope(said, "8.8.8.8"))) == "127.0.0.1"


@pytest.mark.parametrize("said", [None, "", " 203.0.113.9", "203.0.113.9"])
def test_without_a_secret_only_the_connection_counts(said: str | None) -> None:
    assert str(Peers("").address_of(scope(said, client="198.51.100.1"))) == "198.51.100.1"


def test_repeated_header_is_none() -> None:
    twice = scope(f"{SECRET} 203.0.113.9")
    twice["headers"].append((PEER, f"{SECRET} 203.0.113.10".encode()))
    assert str(Peers(SECRET).address_of(twice)) == "127.0.0.1"


def test_socket_without_an_address_is_unknown() -> None:
    unnamed = scope() | {"client": None}
    assert Peers(SECRET).address_of(unnamed) == UNKNOWN


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", "8.8.8.8", "203.0.113.9"),
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "8.8.8.8", "8.8.8.8"),
        ("192.0.2.1", "6.6.6.6, 8.8.8.8", "8.8.8.8"),
        ("192.0.2.1", "6.6.6.6, 8.8.8.8, 192.0.2.7", "8.8.8.8"),
        ("192.0.2.1", "8.8.8.8, nonsense, 192.0.2.7", "192.0.2.7"),
        ("192.0.2.1", "192.0.2.9,192.0.2.8", "192.0.2.9"),
        ("2001:db8::5", "::ffff:8.8.8.8", "8.8.8.8"),
        ("192.0.2.1", ",".join(["6.6.6.6"] * 9 + ["192.0.2.2"] * 16), "192.0.2.2"),
    ],
)
def test_proxies_that_are_trusted_tell_who_was_before_them(
    peer: str, forwarded: str, expected: str
) -> None:
    found = Peers(SECRET, TRUSTED).address_of(scope(f"{SECRET} {peer}", forwarded))
    assert str(found) == expected


@given(chain=st.lists(st.ip_addresses() | st.text(max_size=8), max_size=8), last=st.ip_addresses())
def test_a2_b7_address_is_never_left_of_one_that_is_not_trusted(
    chain: list[Any], last: Any
) -> None:
    address = parsed(str(last))
    written = [*(str(one).replace(",", "") for one in chain), str(address)]
    found = Peers(SECRET, TRUSTED).address_of(
        {"headers": [(PEER, f"{SECRET} 192.0.2.1".encode()), (FORWARDED, _bytes(written))]}
    )
    if not any(address in network for network in TRUSTED) and address != UNKNOWN:
        assert found == address


def _bytes(hops: list[str]) -> bytes:
    return ",".join(hops).encode("latin-1", "replace")


def test_text_that_is_no_address_is_unknown() -> None:
    for text in ("", "localhost", "1.2.3", "0x7f.1", "127.0.0.1:80", "[::1]", "१२७.0.0.1"):
        assert parsed(text) == UNKNOWN
    assert parsed("::ffff:10.0.0.1") == ip_address("10.0.0.1")
