"""The bodies that load, unload and switch models."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from deployments.engines.weights import EMBEDDED
from deployments.ingress.schemas.base import Schema
from deployments.stores.content import invalid
from deployments.types import WHOLE, LoadOrder, ModelKind, SwitchOrder

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
VERSION = r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}"
MAX_REPLICAS = 256

OF_THE_BASE = (
    "source",
    "kind",
    "engine",
    "device",
    "precision",
    "replicas",
    "tensor_parallel",
    "options",
)
"""What an adapter has no wishes of its own for."""

Name = Annotated[str, Field(pattern=f"^{NAME}$")]
Version = Annotated[str, Field(pattern=f"^{VERSION}$")]
ID = f"{NAME}(@{VERSION})?"
NameOrId = Annotated[
    str,
    Field(
        pattern=f"^{ID}(:{ID})?$",
        description="`name` or `name@version`; of an adapter, `base:adapter`, with versions if "
        "wanted",
    ),
]
Option = bool | int | float | Annotated[str, Field(max_length=1024)]
OptionName = Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")]


class Replicas(Schema):
    """How many replicas: Serve adds and removes some between the two by what there is to do."""

    min: int = Field(default=1, ge=0, le=MAX_REPLICAS)
    max: int | None = Field(default=None, ge=1, le=MAX_REPLICAS, description="null: as `min`")

    @model_validator(mode="after")
    def _is_a_range(self) -> "Replicas":
        if self.max is not None and self.max < self.min:
            raise invalid("`max` is less than `min`", "replicas.max")
        return self


class LoadModel(Schema):
    """`POST /v1/models/load`: which files, on what, how many."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model_id": "smollm2", "source": "embedded:smollm2-135m-instruct", "wait": True}
            ]
        }
    )

    model_id: NameOrId
    version: Version | None = Field(default=None, description='null: as `model_id` says, or "1"')
    source: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        default=None,
        description="`embedded:<name>`, `tuned:<name>@<version>` of a tuning, an absolute path "
        "below a root that the operator allows, or `hub:<org>/<name>` if that is allowed; null: "
        "`embedded:` and the model's name",
    )
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="what the weights' one file must have"
    )
    kind: ModelKind | None = Field(default=None, description="null: as the files say")
    engine: Literal["transformers", "fake", "vllm", "deepspeed"] | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$")] = Field(
        default="auto", description="`cpu`, `cuda`, `cuda:<number>`, or `auto`"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8", "int4"] = "auto"
    replicas: Replicas = Replicas()
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    adapter: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        default=None,
        description="a folder as PEFT saves a LoRA adapter, from where a `source` may be; "
        "`model_id` is `base:adapter`, the base being loaded, and the base says all else",
    )
    options: Annotated[dict[OptionName, Option], Field(max_length=32)] = Field(
        default_factory=dict, description="further arguments of the engine, as in the configuration"
    )
    wait: bool = Field(default=False, description="answer when the model is ready, or has failed")
    stream: bool = Field(default=False, description="tell how far the load is until then")

    @model_validator(mode="after")
    def _is_model_or_adapter(self) -> "LoadModel":
        if self.adapter is None:
            if ":" in self.model_id:
                raise invalid("the id is an adapter's: say where it is", "adapter")
            return self
        if ":" not in self.model_id:
            raise invalid("the id of an adapter is `base:adapter`", "model_id")
        for name in OF_THE_BASE:
            usual = type(self).model_fields[name].get_default(call_default_factory=True)
            if getattr(self, name) != usual:
                raise invalid("an adapter has this from its base: leave it out", name)
        return self

    @model_validator(mode="after")
    def _has_one_version(self) -> "LoadModel":
        _, _, version = self._name.partition("@")
        if version and self.version not in (None, version):
            raise invalid("`model_id` says another version", "version")
        return self

    @property
    def _name(self) -> str:
        """Return the id, of an adapter that behind its base's."""
        return self.model_id.rpartition(":")[2]

    def order(self) -> LoadOrder:
        """Return the graph's form."""
        name, _, version = self._name.partition("@")
        if self.adapter is not None:
            base = self.model_id.partition(":")[0]
            return LoadOrder(
                name=f"{base.partition('@')[0]}:{name}",
                version=version or self.version or "",
                sha256=self.sha256 or "",
                adapter=self.adapter,
                base=base,
            )
        source = self.source or ("" if self.engine == "fake" else f"{EMBEDDED}{name}")
        least = self.replicas.min
        return LoadOrder(
            name=name,
            version=version or self.version or "",
            source=source,
            sha256=self.sha256 or "",
            kind=self.kind,
            engine=self.engine,
            device=self.device,
            precision=self.precision,
            min_replicas=least,
            max_replicas=max(least, 1) if self.replicas.max is None else self.replicas.max,
            tensor_parallel=self.tensor_parallel,
            options=dict(self.options),
        )


class UnloadModel(Schema):
    """`POST /v1/models/unload`: requests that run are finished, then the memory is free."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model_id": "smollm2@1"}]})

    model_id: NameOrId
    force: bool = Field(
        default=False, description="also when aliases name it or collections were embedded with it"
    )
    wait: bool = Field(default=False, description="answer when it is gone")


class SwitchModel(Schema):
    """`POST /v1/models/switch`: which version an alias names; rollback is a switch back."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"alias": "chat", "to": "smollm2@2", "canary_percent": 10}]}
    )

    alias: Name
    to: NameOrId
    canary_percent: int = Field(
        default=WHOLE, ge=1, le=WHOLE, description="share of the requests; 100 are all"
    )
    drain_s: float | None = Field(
        default=None,
        ge=0,
        le=86_400,
        description="how long a version that no alias names any more stays loaded; null: as "
        "configured",
    )
    wait: bool = Field(default=False, description="load the version first, if it is not")

    def order(self) -> SwitchOrder:
        """Return the graph's form."""
        return SwitchOrder(
            alias=self.alias,
            to=self.to,
            canary_percent=self.canary_percent,
            drain_s=self.drain_s,
        )
