"""How many of fifty planted facts an answer holds, by number of passages and by prompt template.

    python -m tests.bench.facts --passages 1,2,3,4,6

Runs the replicas of the default application in process: the same models, search and prompt.
"""

import argparse
import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from deployments.config import EmbedderArgs, GeneratorArgs, RetrieverArgs
from deployments.embedder import Embedder
from deployments.generator import Generator
from deployments.types import (
    Delta,
    Document,
    GenerationRequest,
    Grounding,
    Message,
    SamplingParams,
    SearchRequest,
)
from graphs.prompt import TEMPLATE
from graphs.rag import AnswerArgs
from graphs.relevance import relevant

FACTS = Path(__file__).parent.parent / "e2e" / "facts.yaml"
OTHERS = {
    "short": "{passages}\n\nQuestion: {question}\nAnswer:",
    "context": "Context:\n{passages}\n\nAnswer the question using only the context.\n{question}",
    "after": "{passages}\n\nAnswer in one short sentence from the text above: {question}",
}


def holds(answer: str, wanted: list[str]) -> bool:
    """Return whether the answer holds the fact, in one of its spellings."""
    return any(one.lower() in answer.lower() for one in wanted)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", default="1,2,3,4,6", help="numbers of passages to try")
    parser.add_argument("--templates", default="default", help="default, all, or names")
    parser.add_argument("--show-misses", action="store_true")
    options = parser.parse_args()
    templates = {"default": TEMPLATE, **OTHERS}
    if options.templates != "all":
        templates = {name: templates[name] for name in options.templates.split(",")}
    facts = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAGSERVE_STATE_DIR"] = folder
        await compare(facts, templates, [int(n) for n in options.passages.split(",")], options)


async def compare(
    facts: list[dict[str, Any]], templates: dict[str, str], numbers: list[int], options: Any
) -> None:
    # Imported late: it reads its address from the environment.
    from deployments.retriever import Retriever

    embedder, retriever = Embedder(EmbedderArgs()), Retriever(RetrieverArgs())
    generator = Generator(GeneratorArgs())
    await generator.start()
    documents = [Document(id=f"f{n}", text=fact["text"]) for n, fact in enumerate(facts)]
    embedded = await embedder.embed_documents([document.text for document in documents])
    await retriever.upsert("facts", documents, embedded, "minilm")
    table = Table("template", "passages", "facts held", "first passage right", "worst cosine")
    for name, template in templates.items():
        for number in numbers:
            found = await asyncio.gather(
                *(search(embedder, retriever, fact["question"], number) for fact in facts)
            )
            answers = await asyncio.gather(
                *(
                    ask(generator, template, fact["question"], [hit.text for hit in hits])
                    for fact, hits in zip(facts, found, strict=True)
                )
            )
            right = [
                holds(answer, fact["answer"]) for answer, fact in zip(answers, facts, strict=True)
            ]
            first = sum(hits[0].document_id == f"f{n}" for n, hits in enumerate(found))
            worst = min(hits[0].cosine or 0 for hits in found)
            row = (name, str(number), f"{sum(right)}/{len(facts)}", str(first), f"{worst:.2f}")
            table.add_row(*row)
            print("\t".join(row), flush=True)
            if options.show_misses:
                for answer, fact, is_right in zip(answers, facts, right, strict=True):
                    if not is_right:
                        print(name, number, fact["question"], "->", answer[:160])
    Console(width=100).print(table)
    await generator.stop()


async def search(embedder: Embedder, retriever: Any, question: str, top_k: int) -> list[Any]:
    request = SearchRequest(collection="facts", query=question, top_k=top_k, min_score=0.2)
    hits = await retriever.search(request, await embedder.embed([question]), "minilm")
    answer = AnswerArgs()
    return relevant(
        hits,
        question,
        strong_score=answer.strong_score,
        relative_score=answer.relative_score,
    )


async def ask(generator: Generator, template: str, question: str, passages: list[str]) -> str:
    request = GenerationRequest(
        request_id=f"q{abs(hash((template, question, len(passages))))}",
        messages=(Message("user", question),),
        grounding=Grounding(template, tuple(passages)),
        sampling=SamplingParams(max_tokens=64, temperature=0.0),
    )
    return "".join(
        [event.text async for event in generator.generate(request) if isinstance(event, Delta)]
    )


if __name__ == "__main__":
    asyncio.run(main())
