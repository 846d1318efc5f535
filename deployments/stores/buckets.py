"""Which part of a collection a document belongs to: a bucket by its id, a shard by its bucket.

Buckets are stored with the chunks; shards are not, so that their number may change at any restart.
"""

import hashlib
from dataclasses import dataclass

NUM_BUCKETS = 1024


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `total` equal parts of every collection; `index` counts from 0."""

    index: int = 0
    total: int = 1

    @property
    def buckets(self) -> range:
        """Return the buckets of this part."""
        return range(
            self.index * NUM_BUCKETS // self.total, (self.index + 1) * NUM_BUCKETS // self.total
        )


WHOLE = Shard()
"""A collection that is not divided."""


def bucket_of(document_id: str) -> int:
    """Return the bucket that holds a document, 0 to `NUM_BUCKETS` - 1; never to be changed."""
    digest = hashlib.blake2b(document_id.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big") % NUM_BUCKETS
