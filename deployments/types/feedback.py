"""What somebody thought of an answer."""

from dataclasses import dataclass, field
from typing import Literal

Scale = Literal["thumbs", "stars"]
"""`thumbs`: -1, 0 or 1. `stars`: 1 to 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """A verdict on the answer to one request; times are in seconds since 1970.

    `subject` is the person whose words `comment` and `corrected_output` are, so that erasure finds
    them.
    """

    id: str
    tenant: str
    key_id: str
    request_id: str
    rating: int
    scale: Scale
    created_at: float
    comment: str = field(default="", repr=False)
    corrected_output: str = field(default="", repr=False)
    subject: str = field(default="", repr=False)

    @property
    def score(self) -> float:
        """Return the rating in [-1, 1], whatever its scale."""
        return float(self.rating) if self.scale == "thumbs" else (self.rating - 3) / 2
