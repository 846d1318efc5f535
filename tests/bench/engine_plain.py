"""The peer of the engine's bench: a greedy loop over `model.forward` with a `DynamicCache`.

It runs in a process of its own, because two OpenMP pools in one process slow each other down.
"""

import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

from deployments.config import GeneratorArgs


def serve(pipe: Connection, args: GeneratorArgs) -> None:
    """Answer (prompts, number of tokens) with tokens per second, until None comes."""
    import torch
    from transformers import DynamicCache

    from deployments.engines.generation.transformers.loading import read

    model, _ = read(args)
    model.eval()
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        prompts, num_tokens = order
        started = time.perf_counter()
        with torch.inference_mode():
            cache = DynamicCache(config=model.config)
            ids = torch.tensor(prompts)
            for _ in range(num_tokens):
                logits = model(ids, past_key_values=cache, logits_to_keep=1).logits
                ids = logits[:, -1].argmax(-1, keepdim=True)
        pipe.send(len(prompts) * num_tokens / (time.perf_counter() - started))


class PlainLoop:
    """The loop in its process."""

    def __init__(self, args: GeneratorArgs) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, args), daemon=True)
        self._process.start()
        assert self._pipe.recv() == "ready"

    def measure(self, prompts: list[list[int]], num_tokens: int) -> float:
        """Return tokens per second of one padded batch; all prompts have the same length."""
        self._pipe.send((prompts, num_tokens))
        return float(self._pipe.recv())

    def stop(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()
