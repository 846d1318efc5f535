"""LoRA adapters in vLLM's processes: checked here, read there, by numbers of ours."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError

from deployments.engines.generation.adapters import AdapterLedger, Sizes, check_fits
from deployments.engines.generation.admission import refused_adapter
from deployments.engines.inspection.adapters import inspect_adapter
from deployments.errors import EngineFailed


class Adapters(AdapterLedger):
    """The adapters of one engine. vLLM checks little: what fits is seen here, before it reads."""

    def __init__(self, llm: Any, sizes: Sizes, max_rank: int) -> None:
        super().__init__()
        self._llm = llm
        self._sizes = sizes
        self._max_rank = max_rank
        self._requests: dict[int, LoRARequest] = {}
        self._removals: set[asyncio.Task[None]] = set()

    def request(self, number: int | None) -> LoRARequest | None:
        """Return how an adapter is named to vLLM; None: the model as it is."""
        return None if number is None else self._requests[number]

    async def _read(self, number: int, location: str) -> None:
        await asyncio.to_thread(self._check, Path(location))
        request = LoRARequest(str(number), number, location)
        try:
            await self._llm.add_lora(request)
        except EngineDeadError as error:
            raise EngineFailed("vLLM has ended") from error
        except Exception as error:  # vLLM tells what its processes met as plain Exceptions
            raise refused_adapter("vLLM cannot put this adapter on this model") from error
        self._requests[number] = request

    def _check(self, folder: Path) -> None:
        updates = inspect_adapter(folder, is_trusted=True).updates
        check_fits(updates, self._sizes)
        rank = max(update.rank for update in updates)
        if rank > self._max_rank:
            message = f"the adapter's rank is {rank}, and the model was loaded for ranks up to"
            raise refused_adapter(f"{message} {self._max_rank} (its option max_adapter_rank)")

    def _free(self, number: int) -> None:
        del self._requests[number]
        removal = asyncio.create_task(self._remove(number))
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def _remove(self, number: int) -> None:
        """Have vLLM free it. Requests of it that were dropped, it was told of before."""
        with contextlib.suppress(EngineDeadError):  # freed with everything else
            await self._llm.remove_lora(number)

    def stop(self) -> None:
        """Wait for nothing more: vLLM is being ended."""
        for removal in self._removals:
            removal.cancel()


def sizes_of(folder: Path) -> Sizes:
    """Return the layers of a model that an adapter may change, from its configuration. Blocks.

    They are those of the transformers engine: no mixture's experts, and not the last layer.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    models: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model = models.from_config(config, trust_remote_code=False)
    last = model.get_output_embeddings()
    return {
        name: (layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer is not last and "expert" not in name
    }
