"""Which models run, and how they compute, search and are tuned: `args` of their deployments."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from deployments.config.base import Args

MIN_PAIR_TOKENS = 32
"""A smaller limit could fail to hold one character beside a query and the special tokens."""

ADAPTER_RANK: Literal[16] = 16
"""Rank that adapters have at most where nothing else is said; those of our tuning have it."""


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
