"""How well late fusion ranks, by the weight of the cosine: the source of `COSINE_WEIGHT`.

Mean reciprocal rank with the embedded model over the made-up facts of the end-to-end test: asked in
other words, by two words of that question, and by two words of the fact. Equal scores share a rank.
"""

import asyncio
import random
import re
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import yaml

from deployments.config import EmbedderArgs
from deployments.engines.embedding.registry import create
from graphs import fusion

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)


def main() -> None:
    asyncio.run(_measure())


async def _measure() -> None:
    engine = create(EmbedderArgs())
    await engine.start()
    for name, queries, texts in _sets():
        asked, _ = await engine.embed(queries)
        stored, _ = await engine.embed(texts)
        ranks = {weight: _mrr(queries, texts, asked @ stored.T, weight) for weight in WEIGHTS}
        cells = "  ".join(f"{weight}: {rank:.3f}" for weight, rank in ranks.items())
        print(f"{name:10} {len(queries):3} queries   {cells}")
    await engine.stop()


def _sets() -> list[tuple[str, list[str], list[str]]]:
    facts = yaml.safe_load((ROOT / "tests/e2e/facts.yaml").read_text(encoding="utf-8"))
    texts = [fact["text"] for fact in facts]
    questions = [fact["question"] for fact in facts]
    keywords = [" ".join(re.findall(r"\w{5,}", question)[:2]) for question in questions]
    rng = random.Random(1)
    words = [" ".join(rng.sample(re.findall(r"\w{3,}", text), 2)) for text in texts]
    return [
        ("questions", questions, texts),
        ("keywords", keywords, texts),
        ("words", words, texts),
    ]


def _mrr(
    queries: Sequence[str], texts: Sequence[str], cosines: "np.ndarray", weight: float
) -> float:
    reciprocals = []
    with mock.patch.object(fusion, "COSINE_WEIGHT", weight):
        for index, query in enumerate(queries):
            scores = np.array(fusion.fused(query, texts, cosines[index].tolist()))
            num_before = (scores > scores[index]).sum() + (scores == scores[index]).sum() / 2 - 0.5
            reciprocals.append(1 / (1 + num_before))
    return float(np.mean(reciprocals))


if __name__ == "__main__":
    main()
