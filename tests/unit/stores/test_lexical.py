import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.errors import StoreUnavailable
from deployments.stores.lexical import LexicalIndex
from deployments.stores.workspace import Workspace

NONE = np.empty(0, dtype=np.int64)
TEXTS = [
    "The quick brown fox jumps over the lazy dog",
    "Café au lait costs ten €",
    "东京的天气今天很好",
    "猫と犬が好きです",
    "한국어 검색은 어렵다",
    "שלום עולם",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "rocket 🚀 launch",
    "snake_case and C++ and a.b@example.org",
]


@pytest.fixture(scope="module")
def index() -> LexicalIndex:
    index = LexicalIndex()
    index.stage(np.arange(len(TEXTS)), TEXTS, NONE)
    index.commit()
    index.show()
    return index


def found(index: LexicalIndex, query: str, limit: int = 10) -> list[int]:
    return [hit.number for hit in index.search(query, limit)]


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("QUICK fox", 0),
        ("cafe", 1),
        ("CAFÉ", 1),
        ("天气", 2),
        ("气", 2),
        ("犬", 3),
        ("검색", 4),
        ("שָׁלוֹם", 5),
        ("مَرْحَبًا", 6),
        ("दुनिया", 7),
        ("🚀", 8),
        ("case", 9),
        ("ｑｕｉｃｋ", 0),
    ],
)
def test_words_of_many_scripts_are_found(index: LexicalIndex, query: str, number: int):
    assert found(index, query) == [number]


@pytest.mark.parametrize("query", ["", " ", "absent", "气天", "quic", "+-*/", "()", '"', "\x00"])
def test_query_without_a_known_term_finds_nothing(index: LexicalIndex, query: str):
    assert found(index, query) == []


@pytest.mark.parametrize(
    "query", ["fox AND (", 'terms:"fox', "fox~2^", "fox*", "[a TO fox", "-fox"]
)
def test_query_syntax_is_data(index: LexicalIndex, query: str):
    assert found(index, query) == [0] or 9 in found(index, query)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=80))
def test_no_query_raises(index: LexicalIndex, query: str):
    assert len(found(index, query)) <= len(TEXTS)


def test_very_long_query_and_word_are_bounded(index: LexicalIndex):
    assert found(index, " ".join(f"w{i}" for i in range(100_000))) == []
    assert found(index, "x" * 1_000_000) == []
    assert found(index, "quick " + " ".join(f"w{i}" for i in range(1000))) == [0]


def test_rare_terms_weigh_more_and_equal_scores_keep_the_logs_order():
    index = LexicalIndex()
    index.stage(np.arange(40), ["common"] * 39 + ["common rare"], NONE)
    index.commit()
    index.show()
    assert found(index, "common rare", 3)[0] == 39
    for limit in (1, 2, 20, 39):
        assert found(index, "common", limit) == list(range(limit))


def test_changes_show_only_when_shown():
    index = LexicalIndex()
    index.stage(np.array([1, 2]), ["one", "two"], NONE)
    index.commit()
    assert found(index, "one two") == []
    index.show()
    assert sorted(found(index, "one two")) == [1, 2]
    index.stage(np.array([3]), ["one"], np.array([1]))
    index.commit()
    assert sorted(found(index, "one two")) == [1, 2]
    index.show()
    assert sorted(found(index, "one two")) == [2, 3]


def grown(workspace: Workspace, max_in_memory: int = 5) -> LexicalIndex:
    """Return an index whose chunks came, went and outgrew the memory in several commits."""
    index = LexicalIndex(workspace, max_in_memory)
    for first in range(0, 12, 3):
        numbers = np.arange(first, first + 3)
        removed = numbers[:1] - 3 if first else NONE
        index.stage(numbers, [f"word number{n}" for n in numbers], removed)
        index.commit()
        index.show()
    return index


def numbers_of(index: LexicalIndex) -> list[int]:
    return [hit.number for hit in index.search("word", 50)]


def test_growing_index_moves_to_a_folder_and_finds_the_same(tmp_path: Path):
    small = grown(Workspace(tmp_path / "small", 0), max_in_memory=100)
    large = grown(Workspace(tmp_path / "large", 0))
    assert numbers_of(small) == numbers_of(large) == [1, 2, 4, 5, 7, 8, 9, 10, 11]
    assert not (tmp_path / "small").exists()
    assert large.num_bytes == sum(
        file.stat().st_size for file in (tmp_path / "large").glob("*/*/*")
    )


@pytest.mark.parametrize("max_in_memory", [5, 100])
def test_saved_index_has_the_living_chunks_only(tmp_path: Path, max_in_memory: int):
    workspace = Workspace(tmp_path / "work", 0)
    index = grown(workspace, max_in_memory)
    index.stage(np.array([99]), ["word late"], NONE)
    index.commit()
    folder = workspace.new_folder()
    assert folder is not None
    index.save(folder)
    loaded = LexicalIndex.load(folder, workspace)
    index.show()
    assert numbers_of(loaded) == numbers_of(index)
    loaded.stage(np.array([100]), ["word later"], np.array([1]))
    loaded.commit()
    loaded.show()
    assert set(numbers_of(loaded)) ^ set(numbers_of(index)) == {1, 100}


def test_disk_that_refuses_leaves_the_next_index_in_memory(tmp_path: Path):
    workspace = Workspace(tmp_path / "work", 0)
    index = grown(workspace)
    for folder in (tmp_path / "work").glob("*/*"):
        shutil.rmtree(folder, ignore_errors=True)
    with pytest.raises(StoreUnavailable):  # at the first file that it writes
        index.stage(np.array([99]), ["word late"], NONE)
    again = grown(workspace)
    assert numbers_of(again) == [1, 2, 4, 5, 7, 8, 9, 10, 11]
    assert not again.can_save
    assert numbers_of(index) == numbers_of(again), "what was open stays readable"


def test_large_index_looks_for_words_that_few_chunks_have(monkeypatch: pytest.MonkeyPatch):
    index = LexicalIndex()
    texts = [f"the port of server{number}" for number in range(40)]
    index.stage(np.arange(40), texts, NONE)
    index.commit()
    index.show()
    assert found(index, "the port of server7", limit=3) == [7, 0, 1]
    monkeypatch.setattr("deployments.stores.terms.MIN_CHUNKS", 40)
    assert found(index, "the port of server7", limit=3) == [7]
    assert found(index, "the port of server7 and server9", limit=3) == [7, 9]
    assert found(index, "the port", limit=3) == [0, 1, 2], "there are no others to look for"
