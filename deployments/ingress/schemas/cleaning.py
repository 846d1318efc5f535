"""The body of `/v1/data/clean`, and the cleaning options that the other data routes take."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from deployments.engines.cleaning.options import CleanOptions, PersonalKind
from deployments.ingress.schemas.base import Schema
from deployments.ingress.schemas.files import File
from deployments.stores.content import invalid

MAX_TEXTS = 256


def _known_region(region: str) -> str:
    from phonenumbers import SUPPORTED_REGIONS

    if region not in SUPPORTED_REGIONS:
        raise ValueError("no telephone numbers are known for this region")
    return region


PhoneRegion = Annotated[str, Field(pattern=r"^[A-Z]{2}$"), AfterValidator(_known_region)]


class CleaningOptions(Schema):
    """How texts are cleaned; control characters are removed in any case."""

    encoding: bool = Field(default=True, description="repair text decoded wrongly (`Ã©` for `é`)")
    unicode: Literal["NFC", "NFKC", "none"] = Field(
        default="NFC", description="Unicode normalisation; NFKC also unifies widths and ligatures"
    )
    whitespace: bool = Field(
        default=True,
        description="one kind of space, no runs within lines, none at line ends, no runs of empty "
        "lines; indentation and tabs stay",
    )
    duplicates: Literal["exact", "near", "none"] = Field(
        default="exact",
        description="remove paragraphs of 40 characters or more that repeat an earlier one; "
        "`/v1/data/clean` also names whole texts that do",
    )
    similarity: float = Field(
        default=0.85, ge=0.5, le=1, description="least Jaccard similarity of word triples (`near`)"
    )
    redact: Annotated[list[PersonalKind], Field(max_length=6)] = Field(
        default=[], description="personal data that a placeholder such as `[EMAIL]` replaces"
    )
    phone_regions: Annotated[list[PhoneRegion], Field(max_length=8)] = Field(
        default=[], description="countries whose numbers are found without a country code too"
    )

    def options(self) -> CleanOptions:
        """Return the engine's form."""
        return CleanOptions(
            encoding=self.encoding,
            unicode=self.unicode,
            whitespace=self.whitespace,
            duplicates=self.duplicates,
            similarity=self.similarity,
            redact=tuple(self.redact),
            phone_regions=tuple(self.phone_regions),
        )


class CleanRequest(Schema):
    """`POST /v1/data/clean`: texts or files to clean text; nothing is stored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"text": "CafÃ©, mail a@example.org", "options": {"redact": ["email"]}}]
        }
    )

    text: str | None = None
    texts: Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    file: File | None = None
    files: Annotated[list[File], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    format: Literal["text", "html"] = Field(
        default="text", description="what `text` and `texts` are; Markdown is text"
    )
    options: CleaningOptions = CleaningOptions()

    @model_validator(mode="after")
    def _has_one_content(self) -> "CleanRequest":
        given = [self.text, self.texts, self.file, self.files]
        if sum(one is not None for one in given) != 1:
            raise invalid("give exactly one of `text`, `texts`, `file` and `files`", "text")
        if self.format != "text" and self.text is None and self.texts is None:
            raise invalid("a file's content says what it is; leave `format` out", "format")
        return self

    def contents(self) -> list[tuple[str, str | File]]:
        """Return what to clean, in order, each with the name of its field."""
        if self.text is not None:
            return [("text", self.text)]
        if self.file is not None:
            return [("file", self.file)]
        texts = [(f"texts[{number}]", one) for number, one in enumerate(self.texts or ())]
        return [*texts, *((f"files[{number}]", one) for number, one in enumerate(self.files or ()))]
