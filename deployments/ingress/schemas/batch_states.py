"""Files and batches, as the API shows them: in OpenAI's form, times in whole seconds since 1970."""

from typing import Literal

from pydantic import BaseModel

from deployments.types.batches import (
    BatchEndpoint,
    BatchState,
    BatchStatus,
    FilePurpose,
    StoredFile,
)


class FileObject(BaseModel):
    """A file; `expires_at` is null where it stays until it is deleted."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: FilePurpose | Literal["batch_output"]
    status: Literal["processed"]


class FilePage(BaseModel):
    """A page of files."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    """A file is gone."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class BatchFault(BaseModel):
    """Why a batch cannot be done; `line` counts from 1."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchFaults(BaseModel):
    """What is wrong with a batch."""

    object: Literal["list"]
    data: list[BatchFault]


class RequestCounts(BaseModel):
    """How many lines there are, were answered, and were answered with an error."""

    total: int
    completed: int
    failed: int


class BatchObject(BaseModel):
    """A batch; its files are null where they would be empty."""

    id: str
    object: Literal["batch"]
    endpoint: BatchEndpoint
    errors: BatchFaults | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


class BatchPage(BaseModel):
    """A page of batches, the newest first."""

    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def file_object(file: StoredFile) -> FileObject:
    """Return a file as the API shows it."""
    return FileObject(
        id=file.id,
        object="file",
        bytes=file.num_bytes,
        created_at=int(file.created_at),
        expires_at=int(file.expires_at) or None,
        filename=file.filename,
        purpose=file.purpose,
        status="processed",
    )


def batch_object(batch: BatchState) -> BatchObject:
    """Return a batch as the API shows it."""

    def moment(status: BatchStatus) -> int | None:
        at = batch.moments.get(status)
        return None if at is None else int(at)

    faults = [
        BatchFault(code=each.code, message=each.message, param=each.param, line=each.line)
        for each in batch.faults
    ]
    counts = batch.counts
    return BatchObject(
        id=batch.id,
        object="batch",
        endpoint=batch.endpoint,
        errors=BatchFaults(object="list", data=faults) if faults else None,
        input_file_id=batch.input_file_id,
        completion_window="24h",
        status=batch.status,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        created_at=int(batch.created_at),
        in_progress_at=moment("in_progress"),
        expires_at=int(batch.expires_at),
        finalizing_at=moment("finalizing"),
        completed_at=moment("completed"),
        failed_at=moment("failed"),
        expired_at=moment("expired"),
        cancelling_at=moment("cancelling"),
        cancelled_at=moment("cancelled"),
        request_counts=RequestCounts(
            total=counts.total, completed=counts.completed, failed=counts.failed
        ),
        metadata=None if batch.metadata is None else dict(batch.metadata),
    )
