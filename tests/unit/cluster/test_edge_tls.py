"""HTTPS at the edge: beside HTTP, HTTP/2, client certificates, a certificate that is replaced."""

import json
import os
import ssl
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from cluster.certificates import KeyPair, trial_pair
from cluster.edge import Edge, EdgeTls
from cluster.errors import OperatorError
from cluster.ports import LOOPBACK, free_ports
from tests.unit.cluster.conftest import edge_options
from tests.unit.cluster.edge_backend import Backend
from tests.unit.cluster.test_edge import wait_for_edge

CURL_NO_TLS = 35


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return trial_pair(tmp_path_factory.mktemp("pair"), LOOPBACK)


@contextmanager
def running(
    backend: Backend, folder: Path, tls: EdgeTls, host: str = LOOPBACK
) -> Iterator[tuple[Edge, int]]:
    options = replace(edge_options(folder, backend.port), tls=tls, host=host)
    edge = Edge(options, os.environ)
    edge.start()
    try:
        yield edge, options.port
    finally:
        edge.stop()


def tls_of(pair: KeyPair, **changes: object) -> EdgeTls:
    return replace(EdgeTls(pair, free_ports(1)[0]), **changes)


def trusting(pair: KeyPair, port: int, **options: object) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=str(pair.certificate))
    if "cert" in options:
        context.load_cert_chain(*options.pop("cert"))  # type: ignore[misc]
    return httpx.AsyncClient(base_url=f"https://{LOOPBACK}:{port}", verify=context, **options)  # type: ignore[arg-type]


async def test_both_are_served_and_https_says_so(
    backend: Backend, tmp_path: Path, pair: KeyPair
) -> None:
    tls = tls_of(pair)
    with running(backend, tmp_path, tls) as (_, port):
        await wait_for_edge(port)
        async with httpx.AsyncClient() as plain:
            answer = await plain.get(f"http://{LOOPBACK}:{port}/echo")
        assert "strict-transport-security" not in answer.headers
        async with trusting(pair, tls.port) as client:
            answer = await client.get("/echo")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert dict(answer.json()["headers"])["x-forwarded-for"] == LOOPBACK
    assert stat.S_IMODE((tmp_path / "tls.pem").stat().st_mode) == 0o600


async def test_http2_is_spoken_and_old_tls_is_not(
    backend: Backend, tmp_path: Path, pair: KeyPair
) -> None:
    tls = tls_of(pair)
    with running(backend, tmp_path, tls) as (_, port):
        await wait_for_edge(port)
        command = ["curl", "-s", "--http2", "--cacert", str(pair.certificate), "-o", "/dev/null"]
        url = f"https://{LOOPBACK}:{tls.port}/echo"
        said = subprocess.run(
            [*command, "-w", "%{http_version}", url], capture_output=True, text=True, check=True
        )
        assert said.stdout == "2"
        old = subprocess.run([*command, "--tls-max", "1.1", url], check=False)
        assert old.returncode == CURL_NO_TLS


async def test_http_leads_to_https_by_choice_but_for_the_hosts_own(
    backend: Backend, tmp_path: Path, pair: KeyPair
) -> None:
    tls = tls_of(pair, is_redirected=True)
    with running(backend, tmp_path, tls, host="0.0.0.0") as (_, port):
        await wait_for_edge(port)
        async with httpx.AsyncClient() as client:
            url = f"http://127.0.0.2:{port}/v1/x?a=1"
            answer = await client.post(url, content=b"{}")
            own = await client.get(f"http://{LOOPBACK}:{port}/own")
    assert answer.status_code == 308
    assert answer.headers["location"] == f"https://127.0.0.2:{tls.port}/v1/x?a=1"
    assert own.status_code == 200
    assert "/v1/x" not in backend.paths


async def test_clients_show_a_certificate_where_one_is_asked_for(
    backend: Backend, tmp_path: Path, pair: KeyPair
) -> None:
    client_pair = trial_pair(tmp_path / "client", LOOPBACK)
    tls = tls_of(pair, client_ca=client_pair.certificate)
    with running(backend, tmp_path, tls) as (_, port):
        await wait_for_edge(port)
        async with trusting(pair, tls.port) as client:
            with pytest.raises((httpx.TransportError, ssl.SSLError)):
                await client.get("/echo")
        cert = (str(client_pair.certificate), str(client_pair.key))
        async with trusting(pair, tls.port, cert=cert) as client:
            assert (await client.get("/echo")).status_code == 200


async def test_replaced_certificate_is_shown_and_connections_go_on(
    backend: Backend, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    first = trial_pair(source, LOOPBACK)
    old_certificate = tmp_path / "old.crt"
    old_certificate.write_bytes(first.certificate.read_bytes())
    tls = tls_of(first)
    with running(backend, tmp_path, tls) as (edge, port):
        await wait_for_edge(port)
        assert not edge.renew()
        async with trusting(KeyPair(old_certificate, first.key), tls.port) as kept:
            await kept.get("/echo")
            first.certificate.unlink()
            second = trial_pair(source, LOOPBACK)
            assert edge.renew()
            assert not edge.renew()
            assert json.loads((await kept.get("/echo")).content)["num_bytes"] == 0
        async with trusting(second, tls.port) as client:
            assert (await client.get("/echo")).status_code == 200
        second.certificate.write_text("nonsense")
        with pytest.raises(OperatorError) as caught:
            edge.renew()
        assert "PRIVATE" not in str(caught.value)
        edge_pid = edge.pid
        assert edge_pid is not None
        os.kill(edge_pid, 0)


def test_pair_that_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    first, second = trial_pair(tmp_path / "a", LOOPBACK), trial_pair(tmp_path / "b", LOOPBACK)
    with pytest.raises(OperatorError, match="is not the key of"):
        KeyPair(first.certificate, second.key).pem()
    with pytest.raises(OperatorError, match="cannot be read"):
        KeyPair(tmp_path / "none", first.key).pem()
    with pytest.raises(OperatorError, match="in PEM"):
        KeyPair(first.key, first.certificate).pem()


def test_trial_pair_is_private_and_kept(tmp_path: Path) -> None:
    pair = trial_pair(tmp_path / "tls", "192.0.2.1")
    assert trial_pair(tmp_path / "tls", "192.0.2.1").pem() == pair.pem()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (pair.key, pair.certificate)} == {0o600}
