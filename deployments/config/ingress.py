"""What an Ingress and its workers hold requests to."""

from ipaddress import ip_network
from itertools import chain
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from deployments.config.base import Args
from deployments.config.interfaces import Interface
from deployments.config.tasks import BatchesArgs, TasksArgs


class AddressArgs(Args):
    """Who may ask, by address; entries are addresses or networks in CIDR notation."""

    allow: tuple[str, ...] = Field(default=(), description="nobody else; empty: everybody")
    deny: tuple[str, ...] = Field(default=(), description="never, whatever else allows it")
    routes: dict[str, tuple[str, ...]] = Field(
        default={}, description="who may ask paths that begin so, such as `/v1/models/`"
    )
    metrics: tuple[str, ...] = Field(default=(), description="who sees `/v1/metrics` without a key")
    trusted_proxies: tuple[str, ...] = Field(
        default=(), description="proxies in front whose `X-Forwarded-For` is believed"
    )

    @model_validator(mode="after")
    def _networks(self) -> Self:
        listed = (self.allow, self.deny, self.metrics, self.trusted_proxies)
        for address in chain(*listed, *self.routes.values()):
            ip_network(address)
        return self


class AuditArgs(Args):
    """For how long the record of every call stays where it can be asked."""

    retention_days: int = Field(
        default=180, ge=180, le=36_500, description="afterwards a day goes to a Parquet file"
    )


class CacheArgs(Args):
    """For how long answers are kept that a model would give again."""

    ttl_s: float = Field(default=300.0, ge=0, le=86_400, description="0: none is kept")
    routes: dict[Annotated[str, Field(pattern="^/")], Annotated[float, Field(ge=0, le=86_400)]] = (
        Field(default={}, description="another ttl_s for a path, such as `/v1/completions`")
    )
    memory_mb: int = Field(
        default=64, ge=1, le=65_536, description="of each ingress replica, where there is no Redis"
    )
    max_entry_bytes: int = Field(default=1024 * 1024, ge=1024, description="of one answer")

    @property
    def is_used(self) -> bool:
        """Return whether any answer is kept."""
        return self.ttl_s > 0 or any(ttl_s > 0 for ttl_s in self.routes.values())

    def ttl_of(self, path: str) -> float:
        """Return for how long answers of a path are kept."""
        return self.routes.get(path, self.ttl_s)


class LimitArgs(Args):
    """How much may be asked; null: as much as there is."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_day: int | None = Field(default=None, ge=1, description="of a day in UTC")
    max_concurrent: int | None = Field(default=None, ge=1, description="requests at once")


class RpcArgs(Args):
    """How gRPC is spoken."""

    max_message_bytes: int = Field(default=16 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    reflection: bool = Field(
        default=False, description="whether anybody may ask which methods and messages there are"
    )


class IngressArgs(Args):
    """Limits that the ingress puts on every request."""

    request_timeout_s: float = Field(default=300.0, gt=0, le=3600)
    max_wait_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="for a replica to take the work, such as one of a model that has to start",
    )
    heartbeat_s: float = Field(default=10.0, gt=0, le=60)
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    interfaces: tuple[Interface, ...] | None = Field(
        default=None,
        min_length=1,
        description="what is loaded and routed, and with it the deployments that run; null: all",
    )
    max_json_depth: int = Field(default=32, ge=4, le=256)
    max_requests_in_flight: int = Field(default=256, ge=1)
    max_document_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    max_documents_per_call: int = Field(default=1000, ge=1)
    addresses: AddressArgs = AddressArgs()
    audit: AuditArgs = AuditArgs()
    key_limits: LimitArgs = Field(
        default=LimitArgs(), description="of every key that is no admin's, where it has none itself"
    )
    limits: dict[Annotated[str, Field(pattern="^/")], LimitArgs] = Field(
        default={}, description="of each tenant on paths that begin so, such as `/v1/chat/`"
    )
    cache: CacheArgs = CacheArgs()
    assumed_max_tokens: int = Field(
        default=512, ge=1, description="of an answer whose request does not say, until it is there"
    )
    rpc: RpcArgs = RpcArgs()
    batches: BatchesArgs = BatchesArgs()
    tasks: TasksArgs = TasksArgs()
    second_factor: Literal["required", "enrolled"] = Field(
        default="required",
        description="what can hurt asks for a one-time code: of every key, or of those that have "
        "a second factor",
    )

    def has_any(self, interfaces: frozenset[Interface]) -> bool:
        """Return whether one of some interfaces is there."""
        return self.interfaces is None or not interfaces.isdisjoint(self.interfaces)
