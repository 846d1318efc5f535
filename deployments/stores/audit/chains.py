"""Every chain as a reader meets it, record by record: what comes next, and what is wrong."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from deployments.stores.audit.chain import Head, beginning, record_hash
from deployments.stores.audit.checkpoints import Checkpoint
from deployments.stores.audit.facets import Facet
from deployments.stores.audit.rows import position_of, record_of
from deployments.types.audit import Position, Wrong


class Broken(Exception):
    """The log is not what was written."""

    def __init__(self, wrong: Wrong) -> None:
        super().__init__(wrong.message)
        self.wrong = wrong


class Chains:
    """The heads so far, and the signed ones that are to be met."""

    def __init__(self, heads: Iterable[Head] = (), signed: Iterable[Checkpoint] = ()) -> None:
        """Take the heads at which reading begins, and the checkpoints that were made since ever."""
        self._heads = {head.writer: head for head in heads}
        self._signed: dict[int, dict[int, tuple[bytes, int]]] = defaultdict(dict)
        for checkpoint in signed:
            for writer, (sequence, digest) in checkpoint.heads.items():
                if sequence > self.head(writer).sequence:
                    self._signed[writer][sequence] = (digest, checkpoint.number)

    def head(self, writer: int) -> Head:
        """Return the head of a chain as far as it was read."""
        return self._heads.get(writer) or beginning(writer)

    @property
    def heads(self) -> list[Head]:
        """Return the heads of all chains of which something was read."""
        return sorted(self._heads.values(), key=lambda head: head.writer)

    def follow(self, row: Any, facets: Mapping[int, Facet]) -> None:
        """Take the next row; raises Broken."""
        position = position_of(row)
        head = self.head(position.writer)
        facet = facets.get(row[3])
        if facet is None:
            raise Broken(Wrong("facet", "who did it, and how it ended, is gone", position))
        if position.sequence > head.sequence + 1:
            missing = Position(head.time_us, head.writer, head.sequence + 1)
            raise Broken(Wrong("missing", "records after this place are gone", missing))
        if position.sequence <= head.sequence:
            raise Broken(Wrong("inserted", "a record stands where none was written", position))
        try:
            found = record_hash(head.hash, position, record_of(row, facet))
        except (ValueError, TypeError):
            found = b""
        if found != row[11]:
            raise Broken(Wrong("changed", "the record is not what was written", position))
        self._heads[position.writer] = Head(position.writer, position.sequence, row[0], found)
        self._compare(position, found)

    def _compare(self, position: Position, found: bytes) -> None:
        signed = self._signed.get(position.writer, {}).pop(position.sequence, None)
        if signed is not None and signed[0] != found:
            message = f"checkpoint {signed[1]} signed another record here"
            raise Broken(Wrong("changed", message, position))

    def check_met(self) -> None:
        """Raise Broken when a signed head was never met."""
        for writer, left in sorted(self._signed.items()):
            if left:
                sequence = min(left)
                message = f"records that checkpoint {left[sequence][1]} signed are gone"
                raise Broken(Wrong("tail", message, Position(0, writer, sequence)))
