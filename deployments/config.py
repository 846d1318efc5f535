"""Typed configuration: `args` of each deployment, and the settings a host gives by environment.

*What* runs stands here and comes from the YAML's `args`; *how much* runs is Serve's `deployments:`
section. Secrets and per-host addresses come from the environment (`Settings`) and nowhere else.
"""

from ipaddress import ip_network
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIN_PAIR_TOKENS = 32
"""A smaller limit could fail to hold one character beside a query and the special tokens."""

ADAPTER_RANK: Literal[16] = 16
"""Rank that adapters have at most where nothing else is said; those of our tuning have it."""


class Args(BaseModel):
    """Base of everything read from YAML: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GeneratorArgs(Args):
    """Which model generates, and within which bounds.

    `source` is `embedded:<name>` (a model pinned in ``configs/models.yaml``), or a local directory.
    """

    model: str = "smollm2-135m-instruct"
    engine: Literal["transformers", "vllm", "deepspeed", "fake"] = "transformers"
    source: str = "embedded:smollm2-135m-instruct"
    device: str = "cpu"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    tensor_parallel: int = Field(
        default=1, ge=1, le=64, description="ranks that share a model; vllm and deepspeed only"
    )
    num_threads: int = Field(default=0, ge=0, le=256, description="0: every core of the host")
    context_length: int = Field(default=4096, ge=64, le=1_048_576)
    kv_cache_tokens: int = Field(default=32_768, ge=256, description="tokens all requests share")
    max_batch_tokens: int = Field(default=512, ge=16, description="tokens of one forward pass")
    max_queued_requests: int = Field(default=256, ge=1)
    speculative_tokens: int = Field(
        default=0, ge=0, le=16, description="guessed from the prompt in each step; vllm only"
    )
    max_adapters: int = Field(
        default=0, ge=0, le=64, description="that one batch may mix; vllm only, where 0 serves none"
    )
    max_adapter_rank: Literal[8, 16, 32, 64, 128, 256] = Field(
        default=ADAPTER_RANK, description="memory is taken for max_adapters of it; vllm only"
    )
    default_max_tokens: int = Field(default=512, ge=1)
    default_temperature: float = Field(default=1.0, ge=0, le=2)
    fake_token_delay_s: float = Field(default=0.001, ge=0, le=10, description="fake engine only")

    @model_validator(mode="after")
    def _has_an_engine_that_splits(self) -> Self:
        if self.tensor_parallel > 1 and self.engine not in ("vllm", "deepspeed"):
            raise ValueError("tensor_parallel above 1 needs the vllm or deepspeed engine")
        if self.speculative_tokens and self.engine != "vllm":
            raise ValueError("speculative_tokens needs the vllm engine")
        if self.max_adapters and self.engine != "vllm":
            raise ValueError("max_adapters needs the vllm engine; the others have no such bound")
        if self.max_adapter_rank != ADAPTER_RANK and not self.max_adapters:
            raise ValueError("max_adapter_rank needs max_adapters")
        return self


class EmbedderArgs(Args):
    """Which model embeds, and how texts are cut and batched."""

    model: str = Field(default="all-minilm-l6-v2", pattern=r"^[\w.:@/-]{1,128}$")
    engine: Literal["transformers", "fake"] = "transformers"
    source: str = "embedded:all-minilm-l6-v2"
    device: str = "cpu"
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    num_threads: int = Field(default=0, ge=0, le=256, description="0: every core of the host")
    segment_tokens: int = Field(default=0, ge=0, le=512, description="0: the model's own limit")
    overlap_tokens: int = Field(default=32, ge=0, le=256)
    max_batch_tokens: int = Field(default=4096, ge=16, description="padded tokens of one forward")
    max_waiting_tokens: int = Field(default=1_000_000, ge=16)
    fake_dim: int = Field(default=64, ge=1, le=255, description="fake engine only")


class RerankerArgs(Args):
    """Which cross-encoder reranks, and how pairs of query and text are cut and batched.

    `source` is a local folder that holds a sequence classifier with one output.
    """

    model: str = Field(pattern=r"^[\w.:@/-]{1,128}$", description="the id that requests name")
    engine: Literal["transformers", "fake"] = "transformers"
    source: str = ""
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    num_threads: int = Field(default=0, ge=0, le=256, description="0: every core of the host")
    max_pair_tokens: int = Field(
        default=0, ge=0, le=512, description="query and segment; 0: the model's own limit"
    )
    overlap_tokens: int = Field(default=32, ge=0, le=256)
    max_batch_tokens: int = Field(default=4096, ge=16, description="padded tokens of one forward")
    max_waiting_tokens: int = Field(default=1_000_000, ge=16)

    @field_validator("max_pair_tokens")
    @classmethod
    def _holds_a_pair(cls, max_pair_tokens: int) -> int:
        if 0 < max_pair_tokens < MIN_PAIR_TOKENS:
            raise ValueError(f"must be 0 or at least {MIN_PAIR_TOKENS}")
        return max_pair_tokens


class RetrieverArgs(Args):
    """How collections are indexed and searched.

    With `shards` above 1, deployments `Retriever-0`, `Retriever-1` … hold one part each of every
    collection, in place of `Retriever`.
    """

    shards: int = Field(default=1, ge=1, le=64, description="may change at any restart")
    replicas_per_collection: int = Field(
        default=2, ge=1, le=64, description="of each shard, where it has more"
    )
    max_collections_in_memory: int = Field(default=10_000, ge=1)
    memory_budget_mb: int = Field(default=4096, ge=16, description="of all indexes of a replica")
    rrf_k: int = Field(default=2, ge=1, le=1000, description="constant of rank fusion")
    """The usual 60 weighs the first and the twentieth of a ranking almost alike, so that a ranking
    with little to say spoils the other. Source: `tests/bench/quality.py --grid`."""
    candidates: int = Field(default=50, ge=1, le=1000, description="hits of each kind to fuse")


class TuningArgs(Args):
    """How models may be fine-tuned."""

    max_queued: int = Field(default=4, ge=0, le=1000, description="tunings that wait for theirs")
    max_workers: int = Field(default=8, ge=1, le=256, description="of one tuning")
    worker_cpus: float = Field(
        default=1.0, gt=0, le=64, description="logical CPUs that each worker asks of Ray"
    )
    max_failures: int = Field(
        default=5, ge=1, le=100, description="in a row, none of which brought a checkpoint"
    )
    start_timeout_s: float = Field(default=600.0, gt=0, le=7200)
    step_timeout_s: float = Field(
        default=1800.0, gt=0, le=86_400, description="for a step, a checkpoint or an evaluation"
    )


class ModelsArgs(Args):
    """What may be loaded at run time, and from where."""

    roots: tuple[str, ...] = Field(
        default=(), description="folders that models may be loaded from, besides `embedded:<name>`"
    )
    allow_hub: bool = Field(default=False, description="`hub:<org>/<name>` may be downloaded")
    trusted_paths: tuple[str, ...] = Field(
        default=(),
        description="model folders that may hold code or pickles, which are never read even there",
    )
    evict: bool = Field(
        default=False, description="unload what was used longest ago to make room for a load"
    )
    start_timeout_s: float = Field(default=600.0, gt=0, le=7200)
    drain_s: float = Field(
        default=30.0, ge=0, le=3600, description="from a switch until the old version goes"
    )
    replica_cpus: float = Field(
        default=0.5, gt=0, le=64, description="logical CPUs that each replica asks of Ray"
    )
    max_ongoing_requests: int = Field(default=256, ge=1, description="of each replica")
    max_queued_requests: int = Field(default=256, ge=1, description="of each model and ingress")
    target_ongoing_requests: int = Field(
        default=32, ge=1, description="of each replica, where there may be more of them"
    )
    graceful_shutdown_s: float = Field(
        default=600.0, ge=1, le=7200, description="longest wait for running requests on unloading"
    )
    tuning: TuningArgs = TuningArgs()


Interface = Literal[
    "inference",
    "clean",
    "data",
    "collections",
    "documents",
    "transfer",
    "erasures",
    "chat",
    "completions",
    "embeddings",
    "rerank",
    "dify",
    "models",
    "finetune",
    "keys",
    "audit",
    "totp",
    "feedback",
    "files",
    "tasks",
]
"""Parts of the HTTP surface that can be left out (``ingress/interfaces.py``)."""

GENERATING: frozenset[Interface] = frozenset({"inference", "chat", "completions"})
"""Interfaces that need the generation model."""

RETRIEVING: frozenset[Interface] = frozenset(
    {
        *("data", "collections", "documents", "transfer", "erasures"),
        *("embeddings", "rerank", "dify"),
    }
)
"""Interfaces that need the embedding models and the collections."""

TASKS: frozenset[Interface] = frozenset({"tasks"})
"""Interfaces by which callers follow work that was put off."""

WORKED: frozenset[Interface] = TASKS | {"files"}
"""Interfaces that need the workers."""


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


class WebhookArgs(Args):
    """Where webhooks may go besides hosts of the public network, over HTTPS."""

    allow_http: bool = Field(default=False, description="whether messages may go unencrypted")
    networks: tuple[str, ...] = Field(
        default=(), description="in CIDR notation, that are not public and may be told all the same"
    )

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for one in networks:
            ip_network(one)
        return networks


class TasksArgs(Args):
    """How work is done that outlives its request."""

    max_running: int = Field(default=32, ge=1, le=1024, description="tasks at once, of each worker")
    max_waiting: int = Field(
        default=10_000, ge=1, le=1_000_000, description="tasks of a tenant that have not ended"
    )
    kept_s: float = Field(default=86_400, ge=1, description="for a result, where nobody says")
    max_kept_s: float = Field(default=7 * 86_400, ge=1, le=366 * 86_400)
    max_batch: int = Field(
        default=1000, ge=1, le=10_000, description="requests of one `/v1/inference/batch`"
    )
    batch_at_once: int = Field(default=16, ge=1, le=256, description="of those, at the same time")
    large_index_bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=1024,
        description="of a body of `/v1/data/index`; from there on it is done as a task",
    )
    webhooks: WebhookArgs = WebhookArgs()


class RpcArgs(Args):
    """How gRPC is spoken."""

    max_message_bytes: int = Field(default=16 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    reflection: bool = Field(
        default=False, description="whether anybody may ask which methods and messages there are"
    )


class BatchesArgs(Args):
    """How much may be kept in files, and how batches of them are done.

    A file comes in one request, so it is bounded by `max_body_bytes`, too.
    """

    concurrency: int = Field(
        default=16, ge=1, le=1024, description="lines of a batch at once, where there is room"
    )
    max_lines: int = Field(default=50_000, ge=1, le=1_000_000, description="of a batch")
    max_line_bytes: int = Field(default=1024 * 1024, ge=1024, description="of a batch's input")
    max_under_way: int = Field(
        default=32, ge=1, description="batches of a tenant that have not ended"
    )
    max_file_bytes: int = Field(default=200 * 1024 * 1024, ge=1)
    max_files: int = Field(default=1000, ge=1, description="of a tenant")
    max_total_bytes: int = Field(
        default=2 * 1024 * 1024 * 1024, ge=1, description="of all files of a tenant"
    )
    kept_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="for inputs and outputs of batches, where nobody says; other files stay",
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


class Settings(BaseSettings):
    """What a host says through its environment (`RAGSERVE_…`)."""

    model_config = SettingsConfigDict(env_prefix="RAGSERVE_", frozen=True)

    state_dir: Path = Path("~/.local/state/ragserve")
    edge_state_dir: Path | None = Field(
        default=None,
        description="state folder of the installation whose edge stands in front of this one; by "
        "default its own",
    )
    http_port: int = Field(default=8080, ge=1, le=65535)
    https_port: int = Field(default=8443, ge=1, le=65535)
    grpc_port: int = Field(default=9000, ge=0, le=65535, description="0: no gRPC at the edge")
    grpc_tls_port: int = Field(default=9443, ge=1, le=65535)
    database_url: str = ""
    redis_url: str = Field(
        default="", description="where limits are counted and answers kept; empty: on each host"
    )
    redis_timeout_s: float = Field(
        default=0.25,
        gt=0,
        le=60,
        description="longest wait of a request for Redis; then each host counts on its own, and "
        "answers are computed",
    )
    broker_url: str = Field(
        default="",
        description="`amqp://` of RabbitMQ or `redis://` of Redis, which tells workers of tasks; "
        "empty: they look at the database themselves",
    )
    transfer_roots: str = Field(
        default="",
        description="folders and `scheme://bucket/prefix` that exports may be written below and "
        "imports read from, separated by commas; each tenant has its own folder in them",
    )

    @property
    def state_path(self) -> Path:
        """Return the state folder as an absolute path."""
        return self.state_dir.expanduser().resolve()

    @property
    def edge_state_path(self) -> Path:
        """Return the state folder of the edge in front as an absolute path."""
        return (self.edge_state_dir or self.state_dir).expanduser().resolve()

    @property
    def database(self) -> str:
        """Return the SQLAlchemy address of the database: SQLite in the state folder by default."""
        return self.database_url or f"sqlite:///{self.state_path / 'ragserve.db'}"
