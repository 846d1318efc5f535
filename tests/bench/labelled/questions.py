"""What a labelled set is: documents, and questions of which the right passages are known."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from deployments.types import Document
from tests.stack import ROOT

HERE = Path(__file__).parent
MANUALS = ROOT / "tests" / "e2e" / "manuals"
OWN = ("README.md", "ARCHITECTURE.md")


@dataclass(frozen=True)
class Question:
    """What is asked, and where the answer stands: `answer` is a piece of the document's text."""

    text: str
    document_id: str
    answer: str
    slice: str
    """Which kind of question it is; figures are given for each."""


@dataclass(frozen=True)
class LabelledSet:
    """Documents of one collection, and questions about them."""

    name: str
    documents: list[Document]
    questions: list[Question]

    def check(self) -> None:
        """Raise ValueError unless every answer stands exactly once in its document."""
        texts = {document.id: document.text for document in self.documents}
        for question in self.questions:
            count = texts[question.document_id].count(question.answer)
            if count != 1:
                place = f"{question.answer!r} stands {count} times in {question.document_id}"
                raise ValueError(place)


def documentation() -> LabelledSet:
    """Return hand-written questions over this project's documents and the tests' manuals."""
    paths = [*(ROOT / name for name in OWN), *sorted(MANUALS.glob("*.md"))]
    rows = yaml.safe_load((HERE / "documentation.yaml").read_text(encoding="utf-8"))
    questions = [
        Question(row[field], row["document"], row["answer"], slice)
        for row in rows
        for field, slice in (("question", "docs, other words"), ("keywords", "docs, keywords"))
    ]
    return LabelledSet("documentation", [_markdown(path) for path in paths], questions)


def chinese() -> LabelledSet:
    """Return hand-written facts in Chinese, which the embedded model has not learnt."""
    rows = yaml.safe_load((HERE / "chinese.yaml").read_text(encoding="utf-8"))
    documents = [Document(id=f"z{n}", text=row["text"]) for n, row in enumerate(rows)]
    questions = [
        Question(row[field], f"z{n}", row["answer"], slice)
        for n, row in enumerate(rows)
        for field, slice in (("question", "Chinese, question"), ("keywords", "Chinese, keywords"))
    ]
    return LabelledSet("chinese", documents, questions)


def right_chunks(question: Question, text: str, spans: Iterable[tuple[int, int]]) -> set[int]:
    """Return where the chunks start that hold the answer whole, else those with a part of it."""
    start = text.index(question.answer)
    end = start + len(question.answer)
    touching = [(a, b) for a, b in spans if a < end and start < b]
    whole = [(a, b) for a, b in touching if a <= start and end <= b]
    return {a for a, _ in whole or touching}


def halves(questions: Iterable[Question]) -> tuple[list[Question], list[Question]]:
    """Return two halves of the questions, each fact wholly in one: to choose by, and to report."""
    first: list[Question] = []
    second: list[Question] = []
    places: dict[tuple[str, str], int] = {}
    for question in questions:
        place = places.setdefault((question.document_id, question.answer), len(places))
        (second if place % 2 else first).append(question)
    return first, second


def _markdown(path: Path) -> Document:
    text = path.read_text(encoding="utf-8")
    return Document(id=path.name, text=text, title=text.partition("\n")[0].removeprefix("# "))
