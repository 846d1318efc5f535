"""How our arguments are said to vLLM: its engine's arguments and its environment."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig
from vllm import AsyncEngineArgs
from vllm.platforms import current_platform

from deployments.config import GeneratorArgs
from deployments.engines.generation.adapters import Sizes
from deployments.engines.generation.transformers.loading import dtype_of, read
from deployments.engines.generation.vllm.executors import OneProcessExecutor, WorkersExecutor
from deployments.engines.weights import locate
from deployments.errors import EngineFailed

MAX_LOGPROBS = 20
MAX_NGRAM = 4
"""Tokens of the end of a text that speculation looks for earlier in it."""

BLOCK_TOKENS = {"cpu": 128, "cuda": 16}
"""Tokens of one page, vLLM's own choice for a device."""

SPARE_BLOCKS = 2
"""One that vLLM never fills, and one that is begun."""

MAX_ATTACHED = 65_536
"""Adapters that vLLM holds; one above it would drop another, and end when that was read again."""

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn",
    # Replicas of one host would all be bound to the same cores.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def set_environment(args: GeneratorArgs) -> None:
    """Set what vLLM's processes read from the environment."""
    os.environ.update(ENVIRONMENT)
    os.environ["OMP_NUM_THREADS"] = str(args.num_threads or os.cpu_count())


def check_device(args: GeneratorArgs) -> None:
    """Raise EngineFailed where this build of vLLM computes on other devices."""
    asked, built_for = torch.device(args.device).type, current_platform.device_type
    if asked != built_for:
        raise EngineFailed(f"this build of vLLM computes on {built_for}, not on {asked}")


@contextmanager
def readable(args: GeneratorArgs) -> Iterator[Path]:
    """Give the folder that vLLM reads: the source, or a copy of a GGUF file's weights meanwhile.

    vLLM reads no GGUF on a processor; the copy has the precision that is computed in.
    """
    weights = locate(args.source)
    if weights.gguf_file is None:
        yield weights.folder
        return
    with tempfile.TemporaryDirectory(prefix="ragserve-vllm-") as folder:
        _export(args, folder)
        yield Path(folder)


def _export(args: GeneratorArgs, folder: str) -> None:
    model, tokenizer = read(args)
    if hasattr(model.config, "quantization_config"):  # what it was before it was dequantised
        del model.config.quantization_config
        model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def engine_args(args: GeneratorArgs, folder: Path, sizes: Sizes) -> AsyncEngineArgs:
    """Return vLLM's arguments for a model of ours; `sizes`: what adapters may change of it."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    longest = int(getattr(config, "max_position_embeddings", 0) or args.context_length)
    is_cpu = torch.device(args.device).type == "cpu"
    options = _adapter_options(args, sizes, is_cpu=is_cpu) if args.max_adapters else {}
    if args.speculative_tokens:
        options["speculative_config"] = {
            "method": "ngram",
            "num_speculative_tokens": args.speculative_tokens,
            "prompt_lookup_max": MAX_NGRAM,
        }
    return AsyncEngineArgs(
        model=str(folder),
        trust_remote_code=False,
        load_format="safetensors",
        dtype=str(dtype_of(args)).removeprefix("torch."),
        max_model_len=min(args.context_length, args.kv_cache_tokens, longest),
        kv_cache_memory_bytes=_cache_bytes(args, config),
        max_num_batched_tokens=max(args.max_batch_tokens, args.context_length),
        tensor_parallel_size=args.tensor_parallel,
        enable_prefix_caching=True,
        max_logprobs=MAX_LOGPROBS,
        structured_outputs_config={"backend": "guidance", "disable_any_whitespace": True},
        enable_log_requests=False,
        # Compiled for a processor (0.32, bf16), it answered with other tokens than the model's.
        enforce_eager=is_cpu,
        # On a processor even one rank has a worker's process, for the sake of its threads.
        distributed_executor_backend=(
            WorkersExecutor if is_cpu or args.tensor_parallel > 1 else OneProcessExecutor
        ),
        **options,
    )


def _adapter_options(args: GeneratorArgs, sizes: Sizes, *, is_cpu: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "enable_lora": True,
        "max_loras": args.max_adapters,
        "max_lora_rank": args.max_adapter_rank,
        "max_cpu_loras": MAX_ATTACHED,
        "lora_target_modules": sorted({name.rpartition(".")[2] for name in sizes}),
    }
    if is_cpu:
        options["worker_cls"] = "deployments.engines.generation.vllm.worker.AdapterWorker"
    return options


def _cache_bytes(args: GeneratorArgs, config: Any) -> int:
    """Return the bytes of the attention cache on each rank."""
    block = BLOCK_TOKENS[torch.device(args.device).type]
    num_tokens = (-(-args.kv_cache_tokens // block) + SPARE_BLOCKS) * block
    num_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token: int = 2 * config.num_hidden_layers * num_heads * width * dtype_of(args).itemsize
    return -(-num_tokens * per_token // args.tensor_parallel)
