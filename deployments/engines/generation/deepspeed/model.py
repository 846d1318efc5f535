"""A rank's part of a model: DeepSpeed's automatic tensor parallelism over a library's model."""

import contextlib
import io
import logging
import os
import socket
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from deployments.config import GeneratorArgs
from deployments.engines.generation.transformers.linears import improve_linears
from deployments.engines.generation.transformers.loading import (
    LoadedModel,
    eos_token_ids,
    read,
)
from deployments.engines.heap import trim
from deployments.errors import EngineFailed
from deployments.types.seats import Seat

MEETING_TIMEOUT_S = 600
"""How long a rank waits for the others: to load, and in a step."""


def join(seat: Seat) -> None:
    """Say which rank this process is, and meet the others.

    DeepSpeed reads its environment when it is imported, and finds torch's process group made.
    """
    is_cpu = torch.device(seat.device).type == "cpu"
    os.environ.update(
        DS_ACCELERATOR="cpu" if is_cpu else "cuda",
        RANK=str(seat.rank),
        WORLD_SIZE=str(seat.size),
        LOCAL_RANK=str(seat.local_rank if is_cpu else torch.device(seat.device).index or 0),
        LOCAL_SIZE=str(seat.num_local),
        MASTER_ADDR=seat.address,
        MASTER_PORT=str(seat.port),
    )
    if seat.num_local == seat.size and is_cpu:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # else it listens on the host's own address
    if seat.size > 1:
        distributed.init_process_group(
            "gloo" if is_cpu else "nccl",
            store=_store(seat),
            rank=seat.rank,
            world_size=seat.size,
            timeout=timedelta(seconds=MEETING_TIMEOUT_S),
        )


def _store(seat: Seat) -> Any:
    """Return the ranks' meeting place, which listens on the gang's own address only.

    Torch would listen on every interface of the first rank's host, and asks nobody who they are.
    """
    store: Any = distributed.TCPStore  # type: ignore[attr-defined]
    timeout = timedelta(seconds=MEETING_TIMEOUT_S)
    if seat.rank:
        return store(seat.address, seat.port, seat.size, False, timeout)
    listener = socket.create_server((seat.address, seat.port))
    return store(
        seat.address,
        seat.port,
        seat.size,
        is_master=True,
        timeout=timeout,
        master_listen_fd=listener.detach(),
    )


def load_part(args: GeneratorArgs, seat: Seat) -> LoadedModel:
    """Load the model and keep this rank's part of it on the rank's device.

    Raises:
        EngineFailed: the model cannot be loaded, or not be split into this many parts.
    """
    model, tokenizer = read(args)
    model.eval().requires_grad_(False)
    eos = eos_token_ids(model, tokenizer)
    if seat.size > 1:
        _split(model, seat)
    model.to(seat.device)
    improve_linears(model)
    trim()
    return LoadedModel(model, tokenizer, eos)


def _split(model: Any, seat: Seat) -> None:
    """Leave in the model only what this rank computes; heads and rows go to ranks evenly."""
    config = model.config.get_text_config()
    heads, kv_heads = heads_of(config, seat.size)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed
    from deepspeed.module_inject.layers import LinearAllreduce

    # DeepSpeed's own all-reduce over shared memory is compiled on its first use, which needs a
    # compiler, and waits by spinning: on 2 cores, 3 ranks made 3.6 tokens/s with it, 3.4 with Gloo.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    with contextlib.redirect_stdout(io.StringIO()):
        deepspeed.init_inference(
            model,
            tensor_parallel={"tp_size": seat.size},
            dtype=model.dtype,
            replace_with_kernel_inject=False,
        )
    if not any(isinstance(module, LinearAllreduce) for module in model.modules()):
        raise EngineFailed("DeepSpeed does not know how to split this model")
    config.head_dim = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    config.num_attention_heads, config.num_key_value_heads = heads, kv_heads


def heads_of(config: Any, size: int) -> tuple[int, int]:
    """Return how many query heads and key heads each of `size` ranks has.

    Raises:
        EngineFailed: they cannot be shared out evenly.
    """
    heads = int(config.num_attention_heads)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    if heads % size or kv_heads % size:
        raise EngineFailed(
            f"{heads} heads with {kv_heads} key heads cannot be split over {size} ranks"
        )
    return heads // size, kv_heads // size
