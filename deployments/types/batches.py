"""Files that callers keep, and batches: many requests in a file, answered when there is room."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

FilePurpose = Literal["assistants", "batch", "evals", "fine-tune", "user_data", "vision"]
"""What a file may be uploaded for; only `batch` has a meaning here, the others are kept as said."""

BatchStatus = Literal[
    "validating",
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
]
BatchEnd = Literal["completed", "failed", "expired", "cancelled"]
BATCH_ENDS: Final[tuple[BatchEnd, ...]] = get_args(BatchEnd)

BatchEndpoint = Literal[
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/inference", "/v1/rerank"
]

View = Literal["", "output", "errors"]
"""Which lines of a batch a file consists of; empty: it was uploaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOrder:
    """A file that somebody sends; one that is kept for 0 s stays until it is deleted."""

    tenant: str
    purpose: FilePurpose
    filename: str
    num_bytes: int
    kept_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file as it is listed; times are in seconds since 1970, 0 is never."""

    id: str
    tenant: str
    purpose: FilePurpose | Literal["batch_output"]
    filename: str
    num_bytes: int
    created_at: float
    expires_at: float = 0.0
    view: View = ""
    batch_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOrder:
    """What a batch is to do; `output_kept_s` counts from when its files are made."""

    tenant: str
    key_id: str
    endpoint: BatchEndpoint
    input_file_id: str
    metadata: Mapping[str, str] | None
    window_s: float
    output_kept_s: float


@dataclass(frozen=True, slots=True)
class LineFault:
    """Why a batch cannot be done; `line` counts from 1, None: it is the whole."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class LineCounts:
    """How many lines there are, were answered, and were answered with an error."""

    total: int = 0
    completed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchState:
    """A batch as the table has it; times are in seconds since 1970.

    `moments` says when it first was what it was: `completed` → time, for each status.
    """

    id: str
    tenant: str
    key_id: str
    task_id: str
    endpoint: BatchEndpoint
    input_file_id: str
    status: BatchStatus
    metadata: Mapping[str, str] | None
    counts: LineCounts
    faults: tuple[LineFault, ...]
    created_at: float
    expires_at: float
    moments: Mapping[str, float]
    output_file_id: str | None = None
    error_file_id: str | None = None

    @property
    def has_ended(self) -> bool:
        """Return whether nothing is left to do."""
        return self.status in BATCH_ENDS


@dataclass(frozen=True, slots=True)
class BatchLine:
    """A sound line of an input file; `collection` is the path of the one it asks, or empty."""

    number: int
    custom_id: str
    collection: str


@dataclass(frozen=True, slots=True)
class LineResult:
    """What a line came to: one line of JSON for the output, or for the errors if it failed.

    `epoch` is the line's when it was begun: what was begun before an erasure does not count.
    """

    number: int
    epoch: int
    is_failed: bool
    data: bytes = field(repr=False)
