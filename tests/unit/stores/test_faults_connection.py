"""A PostgreSQL that cuts connections, stops, or is killed while it is written to and searched."""

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from deployments.config import RetrieverArgs
from deployments.errors import StoreUnavailable
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.migrations import migrate
from deployments.stores.search import Searcher
from deployments.types import SearchRequest
from tests.faults import IS_COMPLETE
from tests.servers.postgres import Postgres, running_postgres
from tests.unit.stores.material import MODEL, doc, put, vector

NUM_CUTS = 200 if IS_COMPLETE else 15
NUM_CRASHES = 20 if IS_COMPLETE else 2
BATCH = [f"doc{number}" for number in range(4)]
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Yield a server of this module's own, with nothing left out that keeps data safe."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def database(server: Postgres) -> Iterator[Database]:
    name = f"faults{time.monotonic_ns()}"
    migrate(server.create(name))
    database = Database(server.url(name))
    yield database
    database.close()
    server.run(f"DROP DATABASE {name} WITH (FORCE)")


class Load:
    """One writer and two searchers that go on through errors and note what they were told."""

    def __init__(self, database: Database) -> None:
        self._database, self._end = database, threading.Event()
        self.acknowledged = self.tried = 0
        self.num_refused = self.num_found = 0
        self.wrong: list[str] = []
        self._threads = [
            threading.Thread(target=self._repeat, args=(work,))
            for work in (self._write, self._searching(), self._searching())
        ]

    def __enter__(self) -> "Load":
        self._write()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._end.is_set():
            try:
                work()
            except StoreUnavailable:
                self.num_refused += 1
                time.sleep(0.005)
            except BaseException as error:
                self.wrong.append(repr(error))
                raise

    def _write(self) -> None:
        self.tried = version = self.tried + 1
        put(self._database, [doc(name, f"version {version} of") for name in BATCH])
        self.acknowledged = version

    def _searching(self) -> Callable[[], None]:
        replica = Searcher(self._database, RetrieverArgs())

        def search() -> None:
            least = self.acknowledged
            request = SearchRequest(collection="c", query="version", top_k=50)
            texts = [c.text for c in replica.search(request, vector("version"), MODEL)]
            versions = {int(text.split()[1]) for text in texts}
            if len(texts) != len(BATCH) or len(versions) != 1 or min(versions) < least:
                self.wrong.append(f"{texts} after {least}")
            self.num_found += 1

        return search

    def wait_for_writes(self, count: int, timeout_s: float = 30) -> None:
        wanted, deadline_s = self.acknowledged + count, time.monotonic() + timeout_s
        while self.acknowledged < wanted and not self.wrong:
            assert time.monotonic() < deadline_s, "writes did not go on"
            time.sleep(0.002)

    def check(self) -> None:
        assert self.wrong == []
        store = DocumentStore(self._database)
        (text,) = {store.get("c", name).document.text for name in BATCH}
        assert int(text.split()[1]) in range(self.acknowledged, self.tried + 1)


def test_cut_connections_lose_nothing_and_are_made_anew(database: Database, server: Postgres):
    with Load(database) as load:
        for _ in range(NUM_CUTS):
            load.wait_for_writes(2)
            server.run(CUT)
        load.wait_for_writes(2)
    load.check()
    assert load.num_refused
    assert load.num_found
    print(f"\n{NUM_CUTS} cuts: {load.acknowledged} writes, {load.num_refused} refused")


@pytest.mark.parametrize("how", ["killed", "stopped", "stopped at once"])
def test_lost_server_is_said_and_everything_acknowledged_is_there_again(
    database: Database, server: Postgres, how: str
):
    with Load(database) as load:
        for _ in range(NUM_CRASHES):
            load.wait_for_writes(3)
            take_down(server, how)
            refused = load.num_refused
            with pytest.raises(StoreUnavailable):
                database.check()
            deadline_s = time.monotonic() + 10
            while load.num_refused < refused + 5:
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
            server.start()
        load.wait_for_writes(3)
    load.check()
    print(f"\n{NUM_CRASHES} times {how}: {load.acknowledged} writes, {load.num_refused} refused")


def take_down(server: Postgres, how: str) -> None:
    if how == "killed":
        server.kill()
    else:
        server.stop(signal.SIGINT if how == "stopped" else signal.SIGQUIT)
