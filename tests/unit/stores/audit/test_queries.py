"""Pages against a naive search: any filters together, any page size, from anywhere."""

import random
from dataclasses import replace

import pytest

from deployments.stores.audit import queries
from deployments.stores.audit.log import AuditLog
from deployments.types.audit import INTENT, AuditFilter, Chained
from tests.unit.stores.audit.conftest import DAY_US, HandClock, call, write

NUM_RECORDS, NUM_QUESTIONS = 400, 150


def filled(log: AuditLog, clock: HandClock, pick: random.Random) -> list[Chained]:
    """Write over four days; return all of it, the newest first."""
    for number in range(NUM_RECORDS):
        record = call(
            number,
            pick.choice([INTENT, 200, 200, 200, 200, 201, 404, 429, 503]),
            tenant=pick.choice(["acme", "beta"]),
            key_id=f"key_{min(pick.randrange(9), pick.randrange(9))}",
            operation=pick.choice(["search", "index", ""]),
        )
        if number % 40 == 39:
            write(log, record)
            clock.now_us += DAY_US // 2 - 7
        else:
            log.record(record)
    log.submit(call(NUM_RECORDS)).result(10)
    everything = log.page(AuditFilter(), limit=1000) + log.page(
        AuditFilter(status=INTENT), limit=1000
    )
    assert len(everything) == NUM_RECORDS + 1
    return sorted(everything, key=_place, reverse=True)


def _place(chained: Chained) -> tuple[int, int, int]:
    place = chained.position
    return place.time_us, place.writer, place.sequence


def is_wanted(chained: Chained, wanted: AuditFilter) -> bool:
    record, time_us = chained.record, chained.position.time_us
    return (
        (wanted.since_us is None or time_us >= wanted.since_us)
        and (wanted.until_us is None or time_us < wanted.until_us)
        and wanted.tenant in (None, record.tenant)
        and wanted.key_id in (None, record.key_id)
        and wanted.operation in (None, record.operation)
        and (
            wanted.status == record.status if wanted.status is not None else record.status != INTENT
        )
        and wanted.status_class in (None, record.status // 100)
    )


def question(pick: random.Random, everything: list[Chained]) -> AuditFilter:
    wanted = AuditFilter()
    choices = {
        "since_us": lambda: pick.choice(everything).position.time_us,
        "until_us": lambda: pick.choice(everything).position.time_us,
        "tenant": lambda: pick.choice(["acme", "beta", "none"]),
        "key_id": lambda: f"key_{pick.randrange(10)}",
        "operation": lambda: pick.choice(["search", "index", ""]),
        "status": lambda: pick.choice([INTENT, 200, 404, 503, 500]),
        "status_class": lambda: pick.choice([2, 4, 5]),
    }
    for name in pick.sample([*choices], pick.randrange(4)):
        wanted = replace(wanted, **{name: choices[name]()})
    return replace(wanted, status=None) if wanted.status_class else wanted


@pytest.mark.parametrize("max_sorted", [queries.MAX_SORTED, 5, 0])
def test_pages_are_what_a_naive_search_finds(
    log: AuditLog, clock: HandClock, monkeypatch: pytest.MonkeyPatch, max_sorted: int
) -> None:
    monkeypatch.setattr(queries, "MAX_SORTED", max_sorted)
    pick = random.Random(0)
    everything = filled(log, clock, pick)
    for _ in range(NUM_QUESTIONS):
        wanted = question(pick, everything)
        after = pick.choice([None, pick.choice(everything).position])
        limit = pick.choice([1, 5, 100, 1000])
        expected = [
            one
            for one in everything
            if is_wanted(one, wanted)
            and (after is None or _place(one) < (after.time_us, after.writer, after.sequence))
        ]
        assert log.page(wanted, limit=limit, after=after) == expected[:limit], wanted
