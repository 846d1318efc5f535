"""Facets: what records share, under a number that follows from it: nobody hands them out."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, bindparam

from deployments.stores.audit.tables import facets
from deployments.types.audit import AuditRecord

RAISE = (
    facets.update()
    .where(facets.c.day == bindparam("of_day"), facets.c.id == bindparam("number"))
    .values(num_records=facets.c.num_records + bindparam("num"))
)
"""Made once: SQLAlchemy takes longer to make a statement than to execute it."""


class Facet(NamedTuple):
    """Who did what, and how it ended."""

    tenant: str
    key_id: str
    operation: str
    method: str
    status: int


def facet_of(record: AuditRecord) -> Facet:
    """Return the facet of a record."""
    return Facet(record.tenant, record.key_id, record.operation, record.method, record.status)


@lru_cache(maxsize=4096)
def number_of(facet: Facet) -> int:
    """Return the number of a facet: 63 bits of a hash."""
    digest = hashlib.blake2b(orjson.dumps(list(facet)), digest_size=8, person=b"ragserve-facet")
    return int.from_bytes(digest.digest(), "big") >> 1


def count(connection: Connection, day: str, found: Mapping[Facet, int]) -> None:
    """Add records to what a day's facets count."""
    for facet, num in sorted(found.items(), key=lambda pair: number_of(pair[0])):
        place = {"of_day": day, "number": number_of(facet), "num": num}
        if connection.execute(RAISE, place).rowcount == 0:
            values = {"day": day, "id": number_of(facet), "num_records": num, **facet._asdict()}
            connection.execute(facets.insert(), values)


def known(
    connection: Connection, day: str, numbers: Iterable[int] | None = None
) -> dict[int, Facet]:
    """Return facets of a day by their numbers, those alone whose number is right.

    `numbers`: those that are wanted; by default all.
    """
    wanted = facets.select().where(facets.c.day == day)
    if numbers is not None:
        wanted = wanted.where(facets.c.id.in_(list(numbers)))
    rows = connection.execute(wanted)
    found = {
        row.id: Facet(row.tenant, row.key_id, row.operation, row.method, row.status) for row in rows
    }
    return {number: facet for number, facet in found.items() if number_of(facet) == number}
