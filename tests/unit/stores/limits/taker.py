"""A process that takes of limits from many threads, for tests that need several.

`taker.py hammer <store> <where> <limit> <at once> <tries>` prints, for each admission, when it was
had and when it was given back; a thread ends when its requests were refused `tries` times.
`taker.py hold <path> <num>` holds leases until it is killed.
"""

import json
import sys
import threading
import time
from pathlib import Path

from deployments.errors import RagError
from deployments.stores.limits.admission import Admission, Budget, Cost, End, LimitStore
from deployments.stores.limits.redis_limits import RedisLimits
from deployments.stores.limits.sqlite_limits import SqliteLimits
from deployments.stores.limits.tending import Tending
from deployments.types.access import Limits

NUM_THREADS = 64
SPEED = 20.0
"""How much faster than the real one the clock is of who holds leases."""


def fast_clock() -> float:
    return time.monotonic() * SPEED


def store_of(kind: str, where: str) -> LimitStore:
    # A pause of the machine is no reason to give up here.
    return RedisLimits(where, timeout_s=60) if kind == "redis" else SqliteLimits(Path(where))


def hammer(kind: str, where: str, limit: int, at_once: int, tries: int) -> None:
    store = store_of(kind, where)
    limits = Limits(requests_per_minute=limit, tokens_per_minute=3 * limit, max_concurrent=at_once)
    budgets = [Budget("key:a", limits)]
    spans: list[tuple[float, float]] = []
    threads_ready = threading.Barrier(NUM_THREADS)

    def work() -> None:
        threads_ready.wait()
        num_refused = 0
        while num_refused < tries:
            try:
                admission = store.take(budgets, Cost(requests=1, tokens=3, is_leased=True))
            except RagError as error:
                num_refused += error.param == "limits.requests_per_minute"
                continue
            began_s = time.monotonic()
            time.sleep(0.0005)
            spans.append((began_s, time.monotonic()))
            release(admission)

    def release(admission: Admission) -> None:
        while True:
            try:
                return store.finish([End(admission, admission.cost.tokens)])
            except RagError:
                continue

    threads = [threading.Thread(target=work) for _ in range(NUM_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(spans), flush=True)


def hold(path: str, num: int) -> None:
    store = SqliteLimits(Path(path), clock=fast_clock)
    Tending(store, period_s=0.1)
    for _ in range(num):
        budgets = [Budget("key:a", Limits(max_concurrent=num))]
        store.take(budgets, Cost(requests=1, is_leased=True))
    print("held", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    if what == "hammer":
        hammer(given[0], given[1], *map(int, given[2:]))
    else:
        hold(given[0], int(given[1]))
