"""How many planted facts an answer holds, by set, number of passages and prompt template.

Set `facts` has fifty short documents; `manuals` has long Markdown ones, and no prompt was ever
chosen by it. Runs the replicas of the default application in process: the same models, search and
prompt. Example:

    python -m tests.bench.facts --passages 1 3 --segment-tokens 64
"""

import argparse
import asyncio
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

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
from graphs.rag import RagArgs
from graphs.relevance import relevant
from tests.stack import ROOT

E2E = Path(__file__).parent.parent / "e2e"
OTHERS = {
    "twice": (
        "Question: {question}\n\nUse the passages below to answer the question. Answer in one "
        "short sentence, with the exact names, numbers and words of the passages.\n\n"
        "{passages}\n\nQuestion: {question}"
    ),
    "fence": (
        "Question: {question}\n\nUse the passages below to answer the question. Answer in one "
        "short sentence, with the exact names, numbers and words of the passages.\n\n"
        "<passages>\n{passages}\n</passages>\n\nQuestion: {question}"
    ),
    "short": "{passages}\n\nQuestion: {question}\nAnswer:",
    "context": "Context:\n{passages}\n\nAnswer the question using only the context.\n{question}",
    "after": "{passages}\n\nAnswer in one short sentence from the text above: {question}",
}


@dataclass(frozen=True)
class Question:
    """What is asked, the document that has the answer, and the answer's spellings."""

    text: str
    document_id: str
    answer: list[str]

    def is_held_by(self, answer: str) -> bool:
        """Return whether an answer holds the fact, in one of its spellings."""
        return any(one.lower() in answer.lower() for one in self.answer)


@dataclass(frozen=True)
class QuestionSet:
    """Documents of one collection, and questions about them."""

    name: str
    documents: list[Document]
    questions: list[Question]


def question_sets() -> list[QuestionSet]:
    """Read the sets from beside the end-to-end tests."""
    facts = yaml.safe_load((E2E / "facts.yaml").read_text(encoding="utf-8"))
    asked = yaml.safe_load((E2E / "manuals.yaml").read_text(encoding="utf-8"))
    manuals = sorted((E2E / "manuals").glob("*.md"))
    return [
        QuestionSet(
            "facts",
            [Document(id=f"f{n}", text=fact["text"]) for n, fact in enumerate(facts)],
            [Question(fact["question"], f"f{n}", fact["answer"]) for n, fact in enumerate(facts)],
        ),
        QuestionSet(
            "manuals",
            [Document(id=path.name, text=path.read_text(encoding="utf-8")) for path in manuals],
            [Question(one["question"], one["document"], one["answer"]) for one in asked],
        ),
    ]


def default_args() -> RagArgs:
    """Return what the default application runs."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    return RagArgs.model_validate(config["applications"][0]["args"])


class Replicas:
    """The replicas that an answer needs, in this process."""

    def __init__(self, args: RagArgs) -> None:
        # Imported late: it reads its address from the environment.
        from deployments.retriever import Retriever

        self._args = args.answer
        self._embedder, self._retriever = Embedder(args.embedder), Retriever(args.retriever)
        self._generator = Generator(args.generator)

    async def store(self, one: QuestionSet) -> None:
        """Store a set's documents in the collection of its name."""
        embedded = await self._embedder.embed_documents([each.text for each in one.documents])
        await self._retriever.upsert(one.name, one.documents, embedded, "minilm")

    async def search(self, collection: str, question: str, top_k: int) -> list[Any]:
        """Return the relevant chunks, as the graph finds them."""
        request = SearchRequest(
            collection=collection, query=question, top_k=top_k, min_score=self._args.min_score
        )
        embedded = await self._embedder.embed([question])
        hits = await self._retriever.search(request, embedded, "minilm")
        return relevant(
            hits,
            question,
            strong_score=self._args.strong_score,
            relative_score=self._args.relative_score,
        )

    async def ask(self, template: str, question: str, passages: list[str]) -> str:
        """Return the answer from these passages; empty where there are none."""
        if not passages:
            return ""
        request = GenerationRequest(
            request_id=f"q{abs(hash((template, question, len(passages))))}",
            messages=(Message("user", question),),
            grounding=Grounding(template, tuple(passages)),
            sampling=SamplingParams(max_tokens=64, temperature=0.0),
        )
        events = self._generator.generate(request)
        return "".join([event.text async for event in events if isinstance(event, Delta)])

    async def stop(self) -> None:
        """Free the models."""
        await self._generator.stop()
        await self._embedder.stop()


async def row_of(
    replicas: Replicas, one: QuestionSet, template: str, top_k: int, show_misses: bool
) -> list[str]:
    """Ask a whole set and return its cells of the table."""
    questions = one.questions
    found = await asyncio.gather(*(replicas.search(one.name, q.text, top_k) for q in questions))
    answers = await asyncio.gather(
        *(
            replicas.ask(template, question.text, [hit.text for hit in hits])
            for question, hits in zip(questions, found, strict=True)
        )
    )
    num_held = num_found = num_reachable = 0
    for question, hits, answer in zip(questions, found, answers, strict=True):
        num_held += question.is_held_by(answer)
        num_found += bool(hits) and hits[0].document_id == question.document_id
        num_reachable += question.is_held_by(" ".join(hit.text for hit in hits))
        if show_misses and not question.is_held_by(answer):
            print(f"{question.text} -> {answer[:160]!r}, wanted {question.answer}")
    total = len(questions)
    return [f"{num_held}/{total}", f"{num_reachable}/{total}", f"{num_found}/{total}"]


async def compare(templates: dict[str, str], options: argparse.Namespace) -> Table:
    """Ask every set with every template and number of passages."""
    args = default_args()
    if options.segment_tokens is not None:
        sizes = {name: getattr(options, name) for name in ("segment_tokens", "overlap_tokens")}
        args = args.model_copy(update={"embedder": args.embedder.model_copy(update=sizes)})
    replicas = Replicas(args)
    table = Table("set", "template", "passages", "facts held", "in passages", "first right")
    for one in question_sets():
        await replicas.store(one)
        for name, template in templates.items():
            for top_k in options.passages or [args.answer.top_k]:
                cells = await row_of(replicas, one, template, top_k, options.show_misses)
                table.add_row(one.name, name, str(top_k), *cells)
    await replicas.stop()
    return table


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, nargs="+", help="numbers of passages to try")
    parser.add_argument("--segment-tokens", type=int, help="size of a stored passage")
    parser.add_argument("--overlap-tokens", type=int, default=16)
    parser.add_argument("--templates", default="default", help="default, all, or names")
    parser.add_argument("--show-misses", action="store_true")
    options = parser.parse_args()
    templates = {"default": TEMPLATE, **OTHERS}
    if options.templates != "all":
        templates = {name: templates[name] for name in options.templates.split(",")}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAGSERVE_STATE_DIR"] = folder
        table = asyncio.run(compare(templates, options))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
