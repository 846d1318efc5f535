"""Facets: what records share, under a number that follows from it: nobody hands them out."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection

from deployments.stores.audit.tables import facets
from deployments.types.audit import AuditRecord


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
    table = facets
    for facet, num in sorted(found.items(), key=lambda pair: number_of(pair[0])):
        where = (table.c.day == day, table.c.id == number_of(facet))
        raised = table.update().where(*where).values(num_records=table.c.num_records + num)
        if connection.execute(raised).rowcount == 0:
            values: dict[str, Any] = facet._asdict()
            values |= {"day": day, "id": number_of(facet), "num_records": num}
            connection.execute(table.insert().values(values))


def counted(records: list[AuditRecord]) -> Counter[Facet]:
    """Return how many records there are of each facet."""
    return Counter(facet_of(record) for record in records)


def known(connection: Connection, day: str) -> dict[int, Facet]:
    """Return the facets of a day by their numbers, those alone whose number is right."""
    rows = connection.execute(facets.select().where(facets.c.day == day))
    found = {
        row.id: Facet(row.tenant, row.key_id, row.operation, row.method, row.status) for row in rows
    }
    return {number: facet for number, facet in found.items() if number_of(facet) == number}
