"""What cleaning is asked for and what it reports. It knows no HTTP and does not clean."""

from dataclasses import dataclass, field
from typing import Literal

PersonalKind = Literal["email", "phone", "card", "iban", "cn_id", "us_ssn"]
DuplicateKind = Literal["exact", "near"]

MAX_REPORTED = 10_000
"""Of a longer list the report shows the beginning; its counts are always complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanOptions:
    """How texts are cleaned. What no database can store is removed in any case.

    `similarity` is the least Jaccard similarity of near duplicates. Phone numbers without a country
    code are found only for the `phone_regions` (ISO 3166 codes).
    """

    encoding: bool = True
    unicode: Literal["NFC", "NFKC", "none"] = "NFC"
    whitespace: bool = True
    duplicates: Literal["exact", "near", "none"] = "exact"
    similarity: float = 0.85
    redact: tuple[PersonalKind, ...] = ()
    phone_regions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """A text before cleaning, and its title (may be empty)."""

    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A removed paragraph; all positions are code points of the cleaned text.

    It stood at `position` and said the same as `text[start:end]`.
    """

    kind: DuplicateKind
    similarity: float
    position: int
    num_characters: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Redaction:
    """A placeholder that stands at `text[start:end]` for personal data."""

    kind: PersonalKind
    start: int
    end: int


@dataclass(slots=True)
class Removed:
    """What cleaning took out of one text, its title left aside."""

    num_repaired_lines: int = 0
    num_control_characters: int = 0
    num_normalized_lines: int = 0
    num_whitespace_characters: int = 0
    num_boilerplate_characters: int = 0
    num_duplicates: int = 0
    personal: dict[PersonalKind, int] = field(default_factory=dict)
    duplicates: list[Duplicate] = field(default_factory=list)
    redactions: list[Redaction] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A clean text (may be empty), its title, and what was removed."""

    text: str
    title: str
    removed: Removed
