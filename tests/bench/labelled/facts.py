"""A few hundred made-up facts, each in a document of its own, and the same on every machine.

Every subject has many facts and every kind of fact many subjects, so that each question shares
words with dozens of wrong documents; every second code begins like its neighbour.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deployments.types import Document
from tests.bench.labelled.questions import LabelledSet, Question

SEED = 20_26
NUM_SUBJECTS = 26
DATA: dict[str, Any] = yaml.safe_load(
    Path(__file__).with_name("facts.yaml").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Kind:
    """One kind of fact: how it is written, asked in other words, and named by key words."""

    name: str
    text: str
    question: str
    keywords: str
    code: str = ""
    """How the value is made, where it is a code: # is a digit, @ a letter."""


def facts() -> LabelledSet:
    """Return about three hundred facts with two questions each."""
    rng = random.Random(SEED)
    subjects = rng.sample(
        [first + last for first in DATA["first"] for last in DATA["last"]], NUM_SUBJECTS
    )
    documents: list[Document] = []
    questions: list[Question] = []
    for kind in (Kind(**row) for row in DATA["kinds"]):
        values = _codes(kind.code, rng) if kind.code else _values(kind.name, rng)
        for subject, value in zip(subjects, values, strict=True):
            answer = kind.text.format(s=subject, v=value)
            number = f"f{len(documents)}"
            documents.append(Document(id=number, text=_around(answer, subject, rng)))
            exact = "facts, exact codes" if kind.code else "facts, keywords"
            asked = {"facts, other words": kind.question, exact: kind.keywords}
            for slice, form in asked.items():
                questions.append(Question(form.format(s=subject, v=value), number, answer, slice))
    return LabelledSet("facts", documents, questions)


def _around(answer: str, subject: str, rng: random.Random) -> str:
    """Return a document: the fact among sentences that say nothing but share its subject."""
    sentences = [one.format(s=subject) for one in rng.sample(DATA["fillers"], 2)]
    sentences.insert(rng.randrange(3), answer)
    return " ".join(sentences)


def _values(name: str, rng: random.Random) -> list[str]:
    if name == "head":
        people = [f"{given} {family}" for given in DATA["given"] for family in DATA["family"]]
        return rng.sample(people, NUM_SUBJECTS)
    if name == "plant":
        return [rng.choice(DATA["towns"]) for _ in range(NUM_SUBJECTS)]
    return [str(rng.randrange(5, 95)) for _ in range(NUM_SUBJECTS)]


def _codes(form: str, rng: random.Random) -> list[str]:
    """Return different codes; every second has the first half of the one before it."""
    codes: list[str] = []
    while len(codes) < NUM_SUBJECTS:
        code = "".join(_character(one, rng) for one in form)
        if len(codes) % 2:
            code = codes[-1][: -len(form) // 2] + code[-len(form) // 2 :]
        if code not in codes:
            codes.append(code)
    return codes


def _character(form: str, rng: random.Random) -> str:
    return {"#": rng.choice("0123456789"), "@": rng.choice("ABCDEFGHKLMNPRSTVX")}.get(form, form)
