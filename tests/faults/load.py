"""Writers and searchers over HTTP that remember what they were told, and check every answer."""

import itertools
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.stack import Stack

NUMBERS = itertools.count()
SLOTS = 6
NUM_READERS = 4
PAGE = 100
ERRORS = {429, 500, 502, 503, 504}


def word(name: str, version: int) -> str:
    return f"{name}v{version}"


@dataclass
class Promise:
    """What may be found of one document: `acknowledged`, or the outcome of an unanswered write.

    A version of 0 is no document.
    """

    acknowledged: int = 0
    unanswered: set[int] = field(default_factory=set)

    def allows(self, found: int) -> bool:
        return found == self.acknowledged or found in self.unanswered


class Load:
    """Each writer has documents of its own, and leaves one alone whose write was not answered."""

    def __init__(self, stack: Stack, num_writers: int = 2) -> None:
        self._stack, self._num_writers = stack, num_writers
        self._collection = f"load{next(NUMBERS)}"
        self.promises: dict[str, Promise] = {}
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self._end = threading.Event()
        self._locks = [threading.Lock() for _ in range(num_writers)]
        self._clients = [self._client() for _ in range(NUM_READERS + 1)]
        self._readers = ThreadPoolExecutor(NUM_READERS * num_writers)

    def _client(self) -> httpx.Client:
        limits = httpx.Limits(max_keepalive_connections=0)  # a new connection each: any replica
        return httpx.Client(
            base_url=self._stack.url, headers=self._stack.headers, timeout=60, limits=limits
        )

    def __enter__(self) -> "Load":
        self._threads = [
            threading.Thread(target=self._write_on, args=(number,))
            for number in range(self._num_writers)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        self._readers.shutdown()
        for client in self._clients:
            client.close()

    def _write_on(self, writer: int) -> None:
        rng, client = random.Random(writer), self._client()
        names = [f"w{writer}x{slot}" for slot in range(SLOTS)]
        version, life = 0, 0
        while not self._end.is_set():
            with self._locks[writer]:
                version += 1
                slot = rng.randrange(SLOTS)
                promise = self.promises.setdefault(names[slot], Promise())
                is_delete = promise.acknowledged > 0 and rng.random() < 0.25
                wanted = 0 if is_delete else version
                outcome = self._write(client, names[slot], wanted, promise)
                if outcome == "acknowledged":
                    self._read_your_write(names[slot], promise)
                elif outcome == "unsent":
                    time.sleep(0.05)
                else:
                    life += 1
                    names[slot] = f"w{writer}x{slot}y{life}"
                    time.sleep(0.05)
        client.close()

    def _write(self, client: httpx.Client, name: str, version: int, promise: Promise) -> str:
        """Write one version, or delete; return `acknowledged`, `unknown`, or `unsent`."""
        try:
            if version:
                body = {"id": name, "text": f"every {word(name, version)}", "title": "load"}
                response = client.post(
                    "/v1/data/index", json={"collection": self._collection, "documents": [body]}
                )
            else:
                path, query = f"/v1/data/documents/{name}", {"collection": self._collection}
                response = client.delete(path, params=query)
        except httpx.ConnectError:
            return "unsent"
        except httpx.HTTPError:
            self.counts["writes cut"] += 1
            promise.unanswered.add(version)
            return "unknown"
        if response.status_code not in (200, 204):
            self._note_error(response, "writes refused")
            promise.unanswered.add(version)
            return "unknown"
        if version and response.json()["errors"]:
            self.wrong.append(f"{name}: {response.text[:200]}")
        promise.acknowledged = version
        self.counts["writes"] += 1
        return "acknowledged"

    def _read_your_write(self, name: str, promise: Promise) -> None:
        """Search on many connections at once: each answer must know the write."""
        wanted = {word(name, promise.acknowledged)} if promise.acknowledged else set()
        searches = [self._readers.submit(self._found, i, name) for i in range(NUM_READERS)]
        for search in searches:
            found = search.result()
            if found is not None and found != wanted:
                self.wrong.append(f"{name}: {found} instead of {wanted}")

    def _found(self, reader: int, name: str) -> set[str] | None:
        request = {"filter": {"field": "_id", "op": "=", "value": name}}
        chunks = self._search(self._clients[reader], query="every", **request)
        return None if chunks is None else {chunk["text"].split()[1] for chunk in chunks}

    def _search(self, client: httpx.Client, **options: Any) -> list[dict[str, Any]] | None:
        body = {"collection": self._collection, "mode": "lexical", "top_k": PAGE, **options}
        try:
            response = client.post("/v1/data/search", json=body)
        except httpx.HTTPError:
            self.counts["searches cut"] += 1
            return None
        if response.status_code != 200:
            self._note_error(response, "searches refused")
            return None
        self.counts["searches"] += 1
        found: list[dict[str, Any]] = response.json()["results"]
        return found

    def _note_error(self, response: httpx.Response, what: str) -> None:
        self.counts[what] += 1
        try:
            code = response.json()["error"]["code"]
        except (ValueError, KeyError, TypeError):
            code = None
        if response.status_code not in ERRORS or not code:
            self.wrong.append(f"{what}: {response.status_code} {response.text[:200]}")

    def check(self, timeout_s: float = 60) -> None:
        """Stop writing for a moment; every replica must find what was promised, and all the same.

        A search that is refused meanwhile is asked again: whoever answers must answer right.
        """
        for lock in self._locks:
            lock.acquire()
        try:
            states = [self._everything(timeout_s) for _ in range(6)]
        finally:
            for lock in self._locks:
                lock.release()
        assert all(state == states[0] for state in states), "replicas disagree"
        for name, promise in self.promises.items():
            found = states[0].get(name, 0)
            assert promise.allows(found), f"{name}: {found}, promised {promise}"
        assert set(states[0]) <= set(self.promises)

    def _everything(self, timeout_s: float) -> dict[str, int]:
        """Return every document's version, by one replica or another for each page."""
        found: dict[str, int] = {}
        deadline_s = time.monotonic() + timeout_s
        while True:
            chunks = self._search(self._clients[-1], query="every", offset=len(found))
            if chunks is None:
                assert time.monotonic() < deadline_s, "searches are not answered again"
                time.sleep(0.05)
                continue
            for chunk in chunks:
                name, version = chunk["text"].split()[1].split("v")
                assert chunk["document_id"] == name
                found[name] = int(version)
            if len(chunks) < PAGE:
                return found
