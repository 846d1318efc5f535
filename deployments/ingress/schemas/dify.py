"""The body of `POST /dify/retrieval`, as lenient as Dify's own versions differ.

Dify shows its user an empty list for every refusal, so null stands for "not said" throughout, and
members that are not known yet are passed over: another version of Dify must not go dark.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from deployments.ingress.schemas.base import Schema
from deployments.ingress.schemas.data import Query

DEFAULT_TOP_K = 4
MAX_CONDITIONS = 64

DifyOperator = Literal[
    "contains",
    "not contains",
    "start with",
    "end with",
    "is",
    "is not",
    "in",
    "not in",
    "empty",
    "not empty",
    "=",
    "≠",
    ">",
    "<",
    "≥",
    "≤",
    "before",
    "after",
]
FieldName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00]+$")]
Text = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]
Scalar = Text | int | float | bool


class DifySchema(Schema):
    """Strict types, but unknown members are passed over."""

    model_config = ConfigDict(extra="ignore")


class DifyCondition(DifySchema):
    """One comparison; several names ask for any of these fields."""

    name: FieldName | Annotated[list[FieldName], Field(min_length=1, max_length=MAX_CONDITIONS)]
    comparison_operator: DifyOperator | None = Field(
        default=None, description="null: the condition does not count"
    )
    value: Scalar | Annotated[list[Scalar], Field(max_length=256)] | None = Field(
        default=None, description="null, but for the two `empty`s: the condition does not count"
    )

    def names(self) -> list[str]:
        """Return the fields to compare."""
        return [self.name] if isinstance(self.name, str) else self.name


class DifyMetadataCondition(DifySchema):
    """Which documents may be found."""

    logical_operator: Literal["and", "or"] | None = Field(default=None, description="null: and")
    conditions: Annotated[list[DifyCondition], Field(max_length=MAX_CONDITIONS)] | None = None


class DifyRetrievalSetting(DifySchema):
    """How much may be found."""

    top_k: int | None = Field(default=None, ge=1, le=100, description=f"null: {DEFAULT_TOP_K}")
    score_threshold: float | None = Field(default=None, ge=0, le=1, description="null: 0")


class DifyRetrieval(DifySchema):
    """A question to one collection."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "knowledge_id": "docs",
                    "query": "What does the ferry cost?",
                    "retrieval_setting": {"top_k": 3, "score_threshold": 0.1},
                }
            ]
        }
    )

    knowledge_id: str = Field(min_length=1, max_length=256, description="name of a collection")
    query: Query
    retrieval_setting: DifyRetrievalSetting | None = None
    metadata_condition: DifyMetadataCondition | None = None

    @property
    def top_k(self) -> int:
        """Return how many records may come back."""
        setting = self.retrieval_setting
        return (setting.top_k if setting else None) or DEFAULT_TOP_K

    @property
    def score_threshold(self) -> float:
        """Return the least score of a record."""
        setting = self.retrieval_setting
        return (setting.score_threshold if setting else None) or 0.0
