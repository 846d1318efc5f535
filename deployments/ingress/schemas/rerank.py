"""The bodies of the rerank routes: Cohere's and Jina's (`documents`), and TEI's (`texts`)."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag

from deployments.errors import PayloadTooLarge
from deployments.ingress.schemas.base import MAX_TEXT_CHARS, ModelId, Schema, Unsupported
from deployments.ingress.schemas.data import Query

MAX_DOCUMENTS = 1000
MAX_TOTAL_CHARS = 4_000_000
"""Characters of one call: about a million tokens, what a replica's queue holds by default."""

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


class TextDocument(Schema):
    """A document as an object; what else it holds comes back with it and is not read."""

    model_config = ConfigDict(extra="allow")

    text: Text


def _kind(value: Any) -> str:
    return "text" if isinstance(value, str) else "object"


Document = Annotated[
    Annotated[Text, Tag("text")] | Annotated[TextDocument, Tag("object")], Discriminator(_kind)
]


def _bounded(documents: list[Any]) -> list[Any]:
    if sum(map(len, texts_of(documents))) > MAX_TOTAL_CHARS:
        error = PayloadTooLarge(f"the texts have more than {MAX_TOTAL_CHARS} characters in all")
        error.param = "documents"
        raise error
    return documents


class RerankRequest(Schema):
    """Cohere's and Jina's body. Long documents are read in segments, never cut."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "What does the ferry cost?",
                    "documents": ["The ferry costs twelve dollars.", "Bread is baked at four."],
                    "top_n": 1,
                }
            ]
        }
    )

    model: ModelId | None = Field(default=None, description="null: the default model")
    query: Query
    documents: Annotated[
        list[Document], Field(min_length=1, max_length=MAX_DOCUMENTS), AfterValidator(_bounded)
    ]
    top_n: int | None = Field(default=None, ge=1, description="null: every document")
    return_documents: bool | None = None
    user: str | None = Field(default=None, max_length=512, description="without effect")
    rank_fields: Unsupported = None
    max_chunks_per_doc: Unsupported = None
    max_tokens_per_doc: Unsupported = None

    def texts(self) -> list[str]:
        """Return every document's text."""
        return texts_of(self.documents)

    def document(self, index: int) -> dict[str, Any]:
        """Return a document as an object, as it was sent."""
        document = self.documents[index]
        return {"text": document} if isinstance(document, str) else document.model_dump()


class TeiRerankRequest(Schema):
    """TEI's body. Nothing is ever cut, so `truncate` and its direction change nothing."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "What does the ferry cost?",
                    "texts": ["Bread is baked at four.", "The ferry costs twelve dollars."],
                }
            ]
        }
    )

    query: Query
    texts: Annotated[list[Text], Field(max_length=MAX_DOCUMENTS), AfterValidator(_bounded)]
    raw_scores: bool | None = Field(default=None, description="logits instead of scores in [0, 1]")
    return_text: bool | None = None
    truncate: bool | None = Field(default=None, description="without effect")
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = Field(
        default=None, description="without effect"
    )


def texts_of(documents: Sequence[str | TextDocument]) -> list[str]:
    """Return the text of each document."""
    return [one if isinstance(one, str) else one.text for one in documents]
