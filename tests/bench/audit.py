"""What the audit log costs: pages of a large log, its proof, and what writing it takes.

The rows are made without the writer, 100,000 in a transaction, but chained, counted and sealed as
it does, so that the proof reads what it would read. Example:

    python -m tests.bench.audit --records 10000000 --days 30
"""

import argparse
import random
import sqlite3
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deployments.config import AuditArgs, Settings
from deployments.stores.audit.chain import Head, link, seal, touched_json
from deployments.stores.audit.facets import Facet, facet_of, number_of
from deployments.stores.audit.log import AuditLog, open_audit, seal_key
from deployments.stores.audit.rows import COLUMNS
from deployments.stores.audit.tables import create_day, day_of, day_table
from deployments.stores.audit.writers import open_writer
from deployments.types.audit import AuditFilter, AuditRecord, Position

DAY_US = 86_400_000_000
START_US = 1_790_000_000_000_000 // DAY_US * DAY_US
OPERATIONS = ("search", "createChatCompletion", "createEmbedding", "index", "listModels", "health")
STATUSES = (200,) * 97 + (404, 429, 503)
NUM_KEYS = 200
GROUP = 100_000
PAGE = 100


def fill(log: AuditLog, path: Path, num_records: int, num_days: int) -> None:
    """Make the rows, evenly over the days."""
    key = seal_key(path.parent)
    head = open_writer(log._database, key, START_US)
    pick = random.Random(0)
    driver = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous=OFF", "journal_size_limit=0"):
        driver.execute(f"PRAGMA {pragma}")
    per_day = num_records // num_days
    for number in range(num_days):
        start = START_US + number * DAY_US
        create_day(log._database, day_of(start), start)
        head = _fill_day(driver, pick, head, start, per_day, number == num_days - 1)
    driver.execute(
        "UPDATE audit_writers SET sequence=?, time_us=?, hash=?, seal=? WHERE id=?",
        (head.sequence, head.time_us, head.hash, seal(key, head), head.writer),
    )
    driver.close()


def _fill_day(
    driver: sqlite3.Connection,
    pick: random.Random,
    head: Head,
    start: int,
    num: int,
    is_last: bool,
) -> Head:
    name = day_table(day_of(start)).name
    columns = ", ".join(COLUMNS)
    statement = f"INSERT INTO {name} ({columns}) VALUES ({', '.join('?' * len(COLUMNS))})"
    counts: Counter[Facet] = Counter()
    step = DAY_US // num
    driver.execute(f"DROP INDEX ix_{name}_facet")
    for begin in range(0, num, GROUP):
        rows = []
        for place in range(begin, min(num, begin + GROUP)):
            is_needle = is_last and place in (7, num // 2)
            record = _record(pick, place, is_needle)
            head = link(head, start + place * step, record)
            facet = facet_of(record)
            counts[facet] += 1
            rows.append(_row(head, record, facet))
        driver.execute("BEGIN IMMEDIATE")
        driver.executemany(statement, rows)
        driver.execute("COMMIT")
    driver.execute(f"CREATE INDEX ix_{name}_facet ON {name} (facet, time_us, writer, sequence)")
    values = [(day_of(start), number_of(one), *one, num) for one, num in counts.items()]
    driver.executemany(f"INSERT INTO audit_facets VALUES ({', '.join('?' * 8)})", values)
    return head


def _record(pick: random.Random, place: int, is_needle: bool) -> AuditRecord:
    key = min(pick.randrange(NUM_KEYS), pick.randrange(NUM_KEYS))
    return AuditRecord(
        request_id=f"req_{place:032x}",
        status=500 if is_needle else pick.choice(STATUSES),
        operation=pick.choice(OPERATIONS),
        method="POST",
        tenant=f"tenant{key % 50}",
        key_id=f"key_{key:032x}",
        address="192.0.2.1",
        latency_us=pick.randrange(100_000),
        tokens_in=pick.randrange(1000),
        touched=(("collection", "docs"),),
    )


def _row(head: Head, record: AuditRecord, facet: Facet) -> tuple[object, ...]:
    place = (head.time_us, head.writer, head.sequence, number_of(facet))
    what = (record.request_id, record.address, record.latency_us, record.tokens_in, 0, "")
    return (*place, *what, touched_json(record.touched), head.hash)


def questions(num_days: int) -> dict[str, tuple[AuditFilter, Position | None]]:
    """Return what is asked: by each filter alone, several together, few and many that match."""
    middle = START_US + num_days * DAY_US // 2
    rare = f"key_{NUM_KEYS - 1:032x}"
    return {
        "newest": (AuditFilter(), None),
        "from the middle": (AuditFilter(), Position(middle, 1, 1)),
        "one hour": (AuditFilter(since_us=middle, until_us=middle + DAY_US // 24), None),
        "a busy key": (AuditFilter(key_id=f"key_{0:032x}"), None),
        "a rare key": (AuditFilter(key_id=rare), None),
        "a rare key's 503 of one route": (
            AuditFilter(key_id=rare, status=503, operation="index"),
            None,
        ),
        "a tenant": (AuditFilter(tenant="tenant7"), None),
        "a route": (AuditFilter(operation="index"), None),
        "429": (AuditFilter(status=429), None),
        "4xx of a tenant": (AuditFilter(status_class=4, tenant="tenant7"), None),
        "two in all": (AuditFilter(status=500), None),
        "nobody": (AuditFilter(key_id="key_none"), None),
    }


def timed(call: Callable[[], object], rounds: int) -> list[float]:
    """Return the milliseconds of each call."""
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        found.append((time.perf_counter() - started) * 1000)
    return found


def write_costs(log: AuditLog, num: int) -> dict[str, float]:
    """Return what taking a record costs its caller, and what a change waits, in milliseconds."""
    record = _record(random.Random(1), 0, False)
    log.submit(record).result(10)
    waits = timed(lambda: log.submit(record).result(10), num)
    started = time.perf_counter()
    for _ in range(10 * num):
        log.record(record)
    taken = (time.perf_counter() - started) * 1000 / (10 * num)
    log.submit(record).result(60)
    whole = (time.perf_counter() - started) * 1000 / (10 * num)
    return {
        "a commit that is waited for, p50": statistics.median(waits),
        "the same, p99": statistics.quantiles(waits, n=100)[98],
        "taking a record": taken,
        "taking and writing one, of many": whole,
    }


def main() -> None:
    """Fill a log, and print what each question costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--verify", action="store_true", help="prove the whole log as well")
    args = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="rs-audit-") as folder:
        log = open_audit(Settings(state_dir=Path(folder), database_url=""), AuditArgs())
        started = time.perf_counter()
        path = Path(folder).resolve() / "audit.db"
        fill(log, path, args.records, args.days)
        console.print(
            f"{args.records} records in {time.perf_counter() - started:.0f} s, "
            f"{path.stat().st_size / 2**20:.0f} MiB"
        )
        table = Table("question", "records", "median ms", "worst ms")
        for name, (wanted, after) in questions(args.days).items():
            found = log.page(wanted, limit=PAGE, after=after)
            took = timed(lambda w=wanted, a=after: log.page(w, limit=PAGE, after=a), args.rounds)
            table.add_row(
                name, str(len(found)), f"{statistics.median(took):.1f}", f"{max(took):.1f}"
            )
        console.print(table)
        if args.verify:
            started = time.perf_counter()
            console.print(log.verify(), f"{time.perf_counter() - started:.1f} s")
        log.start()
        for name, cost in write_costs(log, 500).items():
            console.print(f"{name}: {cost:.3f} ms")
        log.close()


if __name__ == "__main__":
    main()
