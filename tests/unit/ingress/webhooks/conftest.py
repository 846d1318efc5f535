"""Servers that are told, on loopback; a table of deliveries; certificates made for the test."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deployments.config import WebhookArgs
from deployments.ingress.webhooks.delivering import Deliverer
from deployments.ingress.webhooks.guard import Guard, Resolver
from deployments.ingress.webhooks.signing import Signer
from deployments.stores.database import Database
from deployments.stores.grouping import GroupedWrites
from deployments.stores.migrations import migrate
from deployments.stores.tasks.store import TaskStore
from deployments.stores.webhooks import WebhookStore
from deployments.types.tasks import TaskOrder
from deployments.types.webhooks import Delivery

PEPPER = bytes(range(32))
LOOPBACK = WebhookArgs(allow_http=True, networks=("127.0.0.0/8",))
OK = b"HTTP/1.1 204 No Content\r\n\r\n"

Act = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Heard:
    """One request, as its bytes came."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Listener:
    """A server that answers with bytes, or does as it is told, and remembers what it heard."""

    port: int = 0
    answers: list[bytes | Act] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    num_cut: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.strip().split("\r\n")
            headers = dict(_pair(one) for one in rest)
            body = await reader.readexactly(int(headers["content-length"]))
            self.heard.append(Heard(line, headers, body))
            answer = self.answers.pop(0) if self.answers else OK
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            self.num_cut += 1
        finally:
            writer.close()


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(": ")
    return name.lower(), value


@asynccontextmanager
async def listening(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"):
    listener = Listener()
    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: listener.names.append(name)
    server = await asyncio.start_server(listener, host, 0, ssl=tls)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    async with listening() as one:
        yield one


@dataclass
class Post:
    """The table, and deliverers over it."""

    store: WebhookStore
    tasks: TaskStore
    database: Database

    def end(self, url: str, tenant: str = "acme") -> str:
        order = TaskOrder(tenant=tenant, key_id="key_1", path="/v1/x", body=b"{}", webhook=url)
        id_ = self.tasks.submit(order, 1000).result(30).id
        self.tasks.cancel(tenant, id_)
        return id_

    def log(self, tenant: str = "acme") -> list[Delivery]:
        return self.store.find(tenant, limit=1000)

    def make_due(self) -> None:
        with self.database.write() as connection:
            connection.exec_driver_sql("UPDATE webhook_deliveries SET next_at = 0")

    @asynccontextmanager
    async def deliverer(
        self,
        args: WebhookArgs = LOOPBACK,
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> AsyncIterator[Deliverer]:
        one = Deliverer(self.store, Signer(PEPPER), Guard(args, resolver), tls=tls)
        running = asyncio.create_task(one.run())
        try:
            yield one
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await one.close()

    async def until(self, is_so: Callable[[list[Delivery]], bool], tenant: str = "acme") -> None:
        async with asyncio.timeout(20):
            while not is_so(self.log(tenant)):
                await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("migrated") / "test.db"
    migrate(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture
def post(migrated: bytes, tmp_path: Path) -> Iterator[Post]:
    path = tmp_path / "ragserve.db"
    path.write_bytes(migrated)
    database = Database(f"sqlite:///{path}")
    writes = GroupedWrites(database, "tasks")
    yield Post(WebhookStore(database), TaskStore(database, writes), database)
    writes.close()
    database.close()


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts of a server of a name, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "cert.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem, secret)
    return server, ssl.create_default_context(cafile=str(pem))
