from types import SimpleNamespace

import pytest

from deployments.stores.plans import Limits, Plan, plan, wanted_kind

LIMITS = Limits()


@pytest.mark.parametrize(
    ("kind", "num_rows", "wanted"),
    [
        ("auto", 29_999, None),
        ("auto", LIMITS.auto_graph_rows, "hnsw"),
        ("auto", LIMITS.auto_lists_rows - 8, "hnsw"),
        ("auto", LIMITS.auto_lists_rows, "ivfpq"),
        ("flat", 10**9, None),
        ("hnsw", 100, None),
        ("hnsw", 10**9, "hnsw"),
        ("ivfpq", 9_000, None),
        ("ivfpq", 10_000, "ivfpq"),
    ],
)
def test_kind_follows_the_settings_and_the_size(kind, num_rows, wanted):
    assert wanted_kind(kind, num_rows, LIMITS) == wanted


def test_lists_need_as_many_rows_as_a_code_has_values():
    limits = Limits(min_lists_rows=0, min_graph_rows=0)
    assert wanted_kind("ivfpq", 255, limits) is None
    assert wanted_kind("ivfpq", 256, limits) == "ivfpq"


class Accelerator(SimpleNamespace):
    def __len__(self) -> int:
        return self.rows


@pytest.mark.parametrize(
    ("kind", "num_rows", "due"),
    [
        ("ivfpq", 108_000, None),
        ("ivfpq", 108_192, Plan("ivfpq", extends=True)),
        ("ivfpq", 200_000, Plan("ivfpq", extends=False)),
        ("hnsw", 200_000, Plan("hnsw", extends=False)),
    ],
)
def test_lists_are_extended_by_a_tail_and_trained_anew_when_twice_as_long(kind, num_rows, due):
    lists = Accelerator(kind="ivfpq", rows=100_000, num_trained=100_000)
    assert plan(kind, num_rows, lists, LIMITS) == due


def test_graph_is_never_trained_anew():
    graph = Accelerator(kind="hnsw", rows=100_000, num_trained=10_000)
    assert plan("hnsw", 1_000_000, graph, LIMITS) == Plan("hnsw", extends=True)
