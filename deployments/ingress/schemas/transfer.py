"""The bodies and answers of export and import."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from deployments.ingress.schemas.base import Schema
from deployments.ingress.schemas.error import Error

PARQUET = "application/vnd.apache.parquet"

Uri = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2000,
        description="a file below a root of the server's (`RAGSERVE_TRANSFER_ROOTS`) and the "
        "tenant's folder in it",
    ),
]


class ExportRequest(Schema):
    """`POST /v1/data/collections/{name}/export`: without `uri`, the answer is the file."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"uri": "s3://backups/default/docs.parquet"}]}
    )

    uri: Uri | None = None


class ImportRequest(Schema):
    """`POST /v1/data/collections/{name}/import`, where the server is to read the file."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"uri": "s3://backups/default/docs.parquet"}]}
    )

    uri: Uri


class ExportResult(BaseModel):
    """What was written, and where."""

    collection: str
    uri: str
    num_documents: int
    num_chunks: int
    num_bytes: int


class RefusedRow(BaseModel):
    """A row that could not be stored; the first row of the file is 0."""

    row: int
    id: str | None
    error: Error


class ImportResult(BaseModel):
    """What became of the rows; `errors` names the first of the refused ones.

    `num_suppressed` rows of an export were left out, since their documents have been erased.
    """

    collection: str
    num_rows: int
    num_created: int
    num_replaced: int
    num_unchanged: int
    num_chunks: int
    num_failed: int
    num_suppressed: int
    errors: list[RefusedRow]
