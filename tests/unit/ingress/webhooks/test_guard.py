"""Where webhooks may go, and where they may not."""

import ipaddress
from collections.abc import Sequence

import pytest

from deployments.config import WebhookArgs
from deployments.errors import InvalidRequest
from deployments.ingress.webhooks.guard import Guard, Refused, check_url, is_global

STRICT = WebhookArgs()
PRIVATE = {
    "this host": ("0.0.0.0", "127.0.0.1", "127.9.9.9", "::", "::1"),
    "private": ("10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fd00::1", "fc00::1"),
    "link": ("169.254.169.254", "fe80::1", "fe80::1%eth0", "fec0::1"),
    "carrier": ("100.64.0.1", "100.127.255.255"),
    "mapped": ("::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1"),
    "6to4": ("2002:7f00:1::", "2002:a00:1::1", "192.88.99.1"),
    "NAT64": ("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1"),
    "Teredo": ("2001:0:7f00:1::1",),
    "multicast": ("224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"),
    "reserved": ("240.0.0.1", "255.255.255.255", "192.0.0.8", "198.18.0.1"),
    "documentation": ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"),
}


def resolving(*addresses: str):
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


@pytest.mark.parametrize("address", [one for group in PRIVATE.values() for one in group])
async def test_address_that_is_not_public_is_refused(address: str):
    with pytest.raises(Refused, match="refused_address"):
        await Guard(STRICT, resolving(address)).destination("https://hooks.example/x")
    with pytest.raises(Refused, match="refused_address"):  # one among others is one too many
        await Guard(STRICT, resolving("93.184.216.34", address)).destination("https://a.example/")


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111"])
async def test_public_address_is_what_is_connected_to(address: str):
    goal = await Guard(STRICT, resolving(address)).destination("https://hooks.example:8443/a?b=c")
    assert ipaddress.ip_address(goal.url.host) == ipaddress.ip_address(address)
    assert (goal.url.port, goal.url.raw_path) == (8443, b"/a?b=c")
    assert (goal.host, goal.host_header) == ("hooks.example", "hooks.example:8443")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "2130706433", "0x7f000001", "127.1", "0177.0.0.1", "localhost"]
)
async def test_host_that_means_this_one_is_refused_however_it_is_written(host: str):
    with pytest.raises(Refused):
        await Guard(STRICT).destination(f"https://{host}/")


async def test_networks_of_the_operator_are_allowed_and_no_others():
    guard = Guard(
        WebhookArgs(networks=("10.0.0.0/8", "fd00::/8")), resolving("10.1.1.1", "fd00::1")
    )
    assert (await guard.destination("https://a.internal/")).url.host == "10.1.1.1"
    with pytest.raises(Refused):
        await Guard(WebhookArgs(networks=("10.0.0.0/8",)), resolving("127.0.0.1")).destination(
            "https://a.internal/"
        )


async def test_unknown_host_is_said():
    async def nowhere(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    for resolver in (nowhere, resolving()):
        with pytest.raises(Refused, match="unknown_host"):
            await Guard(STRICT, resolver).destination("https://a.example/")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://a.example/",
            "ftp://a.example/",
            "file:///etc/passwd",
            "a.example",
            "//a.example",
        ),
        *("https://", "https:///x", "https://user@a.example/", "https://user:secret@a.example/"),
        *("https://a.example:25/", "https://a.example:22/", "https://a.example:99999/"),
        *("https://a.example/\n", "https://a .example/", "https://a.example\\@b.example/"),
        *("https://a.example/#part", "https://a.example/" + "x" * 3000, "https://[::1/"),
    ],
)
def test_url_that_can_be_no_webhook_is_refused_when_it_is_given(url: str):
    with pytest.raises(InvalidRequest) as refused:
        check_url(url, STRICT)
    assert refused.value.param == "webhook"
    assert "secret" not in refused.value.message


def test_url_of_a_webhook_is_taken():
    for url in ("https://a.example", "https://a.example:8443/x?y=z", "https://bücher.example/"):
        check_url(url, STRICT)
    check_url("http://a.example/", WebhookArgs(allow_http=True))


def test_configuration_names_networks():
    with pytest.raises(ValueError, match="networks"):
        WebhookArgs(networks=("example.org",))


def test_public_addresses_are_global():
    assert is_global(ipaddress.ip_address("8.8.8.8"))
    assert is_global(ipaddress.ip_address("2a00:1450::1"))
