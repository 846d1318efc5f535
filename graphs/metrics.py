"""One Prometheus page for the whole cluster, from what each replica says of itself.

Counters and histograms of the ingress replicas are added up; gauges of the engines too, so the page
is the same whichever ingress replica answers.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

Gauge = tuple[str, str, Callable[[Sequence[Any]], float]]


def _total(field: str) -> Callable[[Sequence[Any]], float]:
    return lambda stats: float(sum(getattr(one, field) for one in stats))


def _most(field: str) -> Callable[[Sequence[Any]], float]:
    return lambda stats: float(max((getattr(one, field) for one in stats), default=0.0))


def _count(stats: Sequence[Any]) -> float:
    return float(len(stats))


GENERATOR: tuple[Gauge, ...] = (
    ("ragserve_generator_replicas", "Generator replicas that answer", _count),
    ("ragserve_generator_requests_running", "Sequences being generated", _total("num_running")),
    ("ragserve_generator_requests_queued", "Sequences waiting for a slot", _total("num_queued")),
    ("ragserve_generator_tokens_per_second", "Tokens generated lately", _total("tokens_per_s")),
    (
        "ragserve_generator_kv_cache_usage_ratio",
        "Fullest KV cache, 0 to 1",
        _most("kv_cache_usage"),
    ),
)
EMBEDDER: tuple[Gauge, ...] = (
    ("ragserve_embedder_replicas", "Embedder replicas that answer", _count),
    (
        "ragserve_embedder_tokens_waiting",
        "Tokens waiting to be embedded",
        _total("num_tokens_waiting"),
    ),
)
RERANKER: tuple[Gauge, ...] = (
    ("ragserve_reranker_replicas", "Reranker replicas that answer", _count),
    (
        "ragserve_reranker_tokens_waiting",
        "Tokens waiting to be scored",
        _total("num_tokens_waiting"),
    ),
)
RETRIEVER: tuple[Gauge, ...] = (
    ("ragserve_retriever_replicas", "Retriever replicas that answer", _count),
    ("ragserve_retriever_collections", "Most collections in a memory", _most("num_collections")),
    ("ragserve_retriever_chunks", "Most chunks in a memory", _most("num_chunks")),
    ("ragserve_retriever_bytes", "Largest memory of indexes", _most("num_bytes")),
    (
        "ragserve_retriever_over_budget",
        "Replicas in which one collection alone exceeds the budget",
        _total("is_over_budget"),
    ),
    (
        "ragserve_retriever_evicted",
        "Collections unloaded for others since the replicas started",
        _total("num_evicted"),
    ),
    (
        "ragserve_retriever_snapshots_refused",
        "Damaged or foreign snapshots met since the replicas started",
        _total("num_snapshots_refused"),
    ),
)


def cluster_metrics(
    *,
    generators: Sequence[Any],
    embedders: Sequence[Any],
    retrievers: Sequence[Any],
    rerankers: Sequence[Any] = (),
    ingresses: Sequence[bytes],
) -> bytes:
    """Return the page; each argument holds one entry per replica that answered."""
    families = [
        *_gauges(GENERATOR, generators),
        *_gauges(EMBEDDER, embedders),
        *_gauges(RETRIEVER, retrievers),
        *_gauges(RERANKER, rerankers),
        *_added_up(ingresses),
    ]
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return generate_latest(registry)


class _Families(Collector):
    """A collector of families that are ready."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _gauges(gauges: Sequence[Gauge], stats: Sequence[Any]) -> list[Metric]:
    return [GaugeMetricFamily(name, text, value=of(stats)) for name, text, of in gauges]


def _added_up(pages: Sequence[bytes]) -> list[Metric]:
    families: dict[str, Metric] = {}
    sums: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
    for page in pages:
        for family in text_string_to_metric_families(page.decode()):
            if family.name.endswith("_created"):  # when a counter began: cannot be added up
                continue
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                sums[family.name, sample.name, tuple(sample.labels.items())] += sample.value
    for (family_name, sample_name, labels), value in sums.items():
        families[family_name].add_sample(sample_name, dict(labels), value)
    return list(families.values())
