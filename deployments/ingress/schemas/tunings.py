"""The body that begins a fine-tuning."""

import base64
import binascii
from typing import Annotated, Any, Literal

import orjson
from pydantic import ConfigDict, Field, model_validator

from deployments.ingress.schemas.base import Schema
from deployments.ingress.schemas.files import File
from deployments.ingress.schemas.models import NameOrId
from deployments.stores.content import invalid
from deployments.types import Training, TuningOrder

FIRST_VERSION = "1"

Lines = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=100_000)]


class FinetuneModel(Schema):
    """`POST /v1/models/finetune`: what is trained, on which examples, and how.

    An example is `{"messages": […]}`, whose assistant's turns are learned, or `{"prompt",
    "completion"}`.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_id": "facts@1",
                    "base": "embedded:smollm2-135m-instruct",
                    "examples": [
                        {
                            "messages": [
                                {"role": "user", "content": "Who keeps the lighthouse of Varn?"},
                                {"role": "assistant", "content": "Odrun Keld."},
                            ]
                        },
                        {"prompt": "The river of Ambrel is", "completion": " the Sothe."},
                    ],
                    "merge": True,
                }
            ]
        }
    )

    model_id: NameOrId = Field(description='id of the new version; its version is "1" if left out')
    base: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="a source, as in `POST /v1/models/load`, or the id of a model"
    )
    examples: Lines | None = Field(default=None, description="these, or `file`")
    file: File | None = Field(default=None, description="JSON Lines, an example each")
    evaluation: Lines | None = Field(
        default=None, description="held-back examples; else `evaluation_share` of the others are"
    )
    evaluation_file: File | None = None
    evaluation_share: float = Field(default=0.1, gt=0, lt=1)
    rank: int = Field(default=16, ge=1, le=256)
    alpha: int = Field(default=32, ge=1, le=1024)
    dropout: float = Field(default=0.0, ge=0, le=0.9)
    target_modules: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,64}$")]], Field(max_length=64)
    ] = Field(default=[], description="names of layers; empty: every linear one but the last")
    epochs: int = Field(default=3, ge=1, le=1000)
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    batch_size: int = Field(default=8, ge=1, le=1024, description="examples of a step")
    max_tokens: int = Field(default=1024, ge=8, le=1_048_576, description="of a line")
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    zero_stage: Literal[2, 3] = Field(default=2, description="of DeepSpeed; 3 shares out the model")
    workers: int = Field(default=1, ge=1, le=256)
    checkpoint_steps: int = Field(default=20, ge=1, le=100_000)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    merge: bool = Field(default=False, description="also write the base with the adapter added")

    @model_validator(mode="after")
    def _has_one_of_each(self) -> "FinetuneModel":
        if (self.examples is None) == (self.file is None):
            raise invalid("give `examples` or `file`", "examples")
        if self.evaluation is not None and self.evaluation_file is not None:
            raise invalid("give `evaluation` or `evaluation_file`", "evaluation")
        return self

    def order(self) -> TuningOrder:
        """Return the graph's form; raises InvalidRequest where a file is no base64."""
        name, _, version = self.model_id.partition("@")
        return TuningOrder(
            name=name,
            version=version or FIRST_VERSION,
            base=self.base,
            examples=_lines(self.examples, self.file, "file"),
            evaluation=_lines(self.evaluation, self.evaluation_file, "evaluation_file"),
            evaluation_share=self.evaluation_share,
            training=self._training(),
            device=self.device,
            is_merged=self.merge,
        )

    def _training(self) -> Training:
        return Training(
            rank=self.rank,
            alpha=self.alpha,
            dropout=self.dropout,
            targets=tuple(self.target_modules),
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            max_tokens=self.max_tokens,
            seed=self.seed,
            zero_stage=self.zero_stage,
            workers=self.workers,
            checkpoint_steps=self.checkpoint_steps,
        )


def _lines(inline: list[dict[str, Any]] | None, file: File | None, param: str) -> bytes:
    """Return JSON Lines; an inline example's line is its place, counted from 1."""
    if inline is not None:
        return b"\n".join(orjson.dumps(one) for one in inline)
    if file is None:
        return b""
    try:
        return base64.b64decode(file.content_base64, validate=True)
    except (binascii.Error, ValueError):
        message = "the file's content is not valid base64"
        raise invalid(message, f"{param}.content_base64") from None
