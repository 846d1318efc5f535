"""Embedding throughput against sentence-transformers, as ratios of interleaved rounds.

Every system runs in a process of its own, so that no pool of threads is in another's way; rounds
take turns, so that a busy machine disturbs all alike. One table goes to standard output.

Example:
    python -m tests.bench.embedding --rounds 5 --texts 128 --calls 10000
"""

import argparse
import asyncio
import atexit
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import psutil

SYSTEMS = {
    "st": "sentence-transformers, default (fp32)",
    "st-bf16": "sentence-transformers, bf16",
    "ours": "ragserve, one caller",
    "ours-many": "ragserve, callers of 4 texts each",
    "ours-bf16": "ragserve, one caller, precision bf16",
}
SOURCE = "embedded:all-minilm-l6-v2"
Precision = Literal["auto", "bf16"]
Encode = Callable[[list[str]], np.ndarray]


def texts(count: int, seed: int) -> list[str]:
    """Return made-up English of 60 to 120 tokens a text, 90 in the mean."""
    from deployments.engines.weights import locate

    vocabulary = json.loads((locate(SOURCE).folder / "tokenizer.json").read_text())["model"][
        "vocab"
    ]
    words = sorted(word for word in vocabulary if word.isascii() and word.isalpha())
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.randint(58, 118))) for _ in range(count)]


def peer(dtype: str) -> Encode:
    import torch
    from sentence_transformers import SentenceTransformer

    from deployments.engines.weights import locate

    options = {"dtype": getattr(torch, dtype)}
    model = SentenceTransformer(str(locate(SOURCE).folder), device="cpu", model_kwargs=options)
    return lambda batch: np.asarray(model.encode(batch, show_progress_bar=False), np.float32)


def ours(
    loop: asyncio.AbstractEventLoop, texts_per_caller: int, precision: Precision = "auto"
) -> Encode:
    from deployments.config import EmbedderArgs
    from deployments.embedder import Embedder

    embedder = Embedder(EmbedderArgs(source=SOURCE, precision=precision))
    loop.run_until_complete(embedder.start())
    atexit.register(lambda: loop.run_until_complete(embedder.stop()))

    async def encode(batch: list[str]) -> np.ndarray:
        size = texts_per_caller or len(batch)
        parts = [batch[start : start + size] for start in range(0, len(batch), size)]
        answers = await asyncio.gather(*map(embedder.embed, parts))
        return np.concatenate([vectors for vectors, _ in answers])

    return lambda batch: loop.run_until_complete(encode(batch))


def load(system: str) -> Encode:
    match system:
        case "st":
            return peer("float32")
        case "st-bf16":
            return peer("bfloat16")
        case "ours":
            return ours(asyncio.new_event_loop(), 0)
        case "ours-bf16":
            return ours(asyncio.new_event_loop(), 0, "bf16")
        case _:
            return ours(asyncio.new_event_loop(), 4)


def work(system: str) -> None:
    """Serve rounds: a line `{"texts", "seed", "file"}` in, the seconds out."""
    encode = load(system)
    encode(texts(32, 1))
    print(flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        batch = texts(job["texts"], job["seed"])
        started = time.perf_counter()
        vectors = encode(batch)
        seconds = time.perf_counter() - started
        np.save(job["file"], vectors)
        print(seconds, flush=True)


def soak(num_calls: int) -> None:
    """Print the resident memory along `num_calls` calls of 1 to 4 texts of many lengths."""
    encode, rng, process = ours(asyncio.new_event_loop(), 0), random.Random(7), psutil.Process()
    lengths = rng.choices((3, 9, 20, 45, 300), weights=(40, 30, 20, 9, 1), k=500)
    words = texts(50, 7)
    pool = [" ".join(rng.choices(rng.choice(words).split(), k=length)) for length in lengths]
    print("\ncalls    RSS MiB")
    for call in range(num_calls + 1):
        if call % max(num_calls // 10, 1) == 0:
            print(f"{call:<8} {process.memory_info().rss / 2**20:.0f}", flush=True)
        encode(rng.choices(pool, k=rng.randint(1, 4)))


def compare(rounds: int, count: int) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench.embedding", "--worker"]
    pipe = subprocess.PIPE
    workers = {
        system: subprocess.Popen(
            [*command, system], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        for system in SYSTEMS
    }
    seconds: dict[str, list[float]] = {system: [] for system in SYSTEMS}
    distance = dict.fromkeys(SYSTEMS, 0.0)
    try:
        for worker in workers.values():
            worker.stdout.readline()
        with tempfile.TemporaryDirectory() as folder:
            for number in range(rounds):
                files = {system: Path(folder, f"{system}.npy") for system in SYSTEMS}
                for system, worker in workers.items():
                    job = {"texts": count, "seed": number, "file": str(files[system])}
                    worker.stdin.write(json.dumps(job) + "\n")
                    worker.stdin.flush()
                    seconds[system].append(float(worker.stdout.readline()))
                vectors = {system: np.load(file) for system, file in files.items()}
                for system in SYSTEMS:
                    cosine = _unit(vectors[system]) * _unit(vectors["st"])
                    distance[system] = max(distance[system], float((1 - cosine.sum(1)).max()))
    finally:
        for worker in workers.values():
            worker.communicate(timeout=30)
    print(f"{rounds} rounds of {count} texts, about 90 tokens each")
    print(f"{'system':<40} texts/s  ratio to default (min..max)  max cosine distance")
    for system, name in SYSTEMS.items():
        ratios = [base / own for base, own in zip(seconds["st"], seconds[system], strict=True)]
        rate = count / statistics.median(seconds[system])
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
        print(f"{name:<40} {rate:7.0f}  {spread:<27}  {distance[system]:.1e}")


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--texts", type=int, default=128, help="texts a round (default 128)")
    parser.add_argument("--calls", type=int, default=0, help="also watch memory along these calls")
    parser.add_argument("--worker", choices=SYSTEMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    if options.rounds:
        compare(options.rounds, options.texts)
    if options.calls:
        soak(options.calls)


if __name__ == "__main__":
    main()
