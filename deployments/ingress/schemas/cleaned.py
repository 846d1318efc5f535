"""What `/v1/data/clean` answers, and what cleaning adds to the other data routes' answers."""

from typing import Literal

from pydantic import BaseModel

from deployments.engines.cleaning.options import PersonalKind
from deployments.ingress.schemas.error import Error


class RemovedParagraph(BaseModel):
    """It stood at `position` of the cleaned text and said the same as `text[start:end]`."""

    kind: Literal["exact", "near"]
    similarity: float
    position: int
    num_characters: int
    start: int
    end: int


class Redaction(BaseModel):
    """A placeholder at `text[start:end]` of the cleaned text."""

    kind: PersonalKind
    start: int
    end: int


class Removed(BaseModel):
    """What cleaning took out of a text; of the two lists at most 10,000 entries each."""

    num_repaired_lines: int
    num_control_characters: int
    num_normalized_lines: int
    num_whitespace_characters: int
    num_boilerplate_characters: int
    num_duplicates: int
    personal: dict[str, int]
    duplicates: list[RemovedParagraph]
    redactions: list[Redaction]


class Repeated(BaseModel):
    """The earlier text of the call that this one repeats."""

    kind: Literal["exact", "near"]
    index: int
    similarity: float


class CleanedText(BaseModel):
    """A clean text, and what was removed."""

    index: int
    filename: str | None
    title: str
    text: str
    num_characters_before: int
    removed: Removed
    duplicate_of: Repeated | None


class CleanFailure(BaseModel):
    """A text or file that could not be cleaned."""

    index: int
    filename: str | None
    error: Error


class CleanResult(BaseModel):
    """Every text that could be cleaned, in order, and what is wrong with the others."""

    data: list[CleanedText]
    errors: list[CleanFailure]


class CleanedDocument(BaseModel):
    """What was removed from a document before it was stored."""

    id: str
    removed: Removed
