"""The cluster's page: added up, and the same whoever is asked."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deployments.batched_replica import BatchedStats
from deployments.retriever import RetrieverStats
from deployments.types import EngineStats
from graphs.metrics import cluster_metrics


def page_of_one_ingress(count: int) -> bytes:
    registry = CollectorRegistry()
    requests = Counter("ragserve_requests", "Requests", ["route"], registry=registry)
    duration = Histogram("ragserve_seconds", "Seconds", buckets=(1,), registry=registry)
    requests.labels("/v1/models").inc(count)
    duration.observe(0.5)
    return generate_latest(registry)


def samples(page: bytes) -> dict[str, float]:
    families = text_string_to_metric_families(page.decode())
    return {
        sample.name + "".join(sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_counters_of_all_replicas_are_added_up() -> None:
    page = cluster_metrics(
        generators=[EngineStats(2, 1, 10.0, 0.5), EngineStats(3, 0, 5.0, 0.25)],
        embedders=[BatchedStats(7), BatchedStats(3)],
        retrievers=[RetrieverStats(1, 10, 100), RetrieverStats(2, 8, 80)],
        ingresses=[page_of_one_ingress(2), page_of_one_ingress(5)],
    )
    found = samples(page)
    assert found["ragserve_requests_total/v1/models"] == 7
    assert found["ragserve_seconds_count"] == 2
    assert found["ragserve_seconds_bucket+Inf"] == 2
    assert found["ragserve_generator_requests_running"] == 5
    assert found["ragserve_generator_kv_cache_usage_ratio"] == 0.5
    assert found["ragserve_embedder_tokens_waiting"] == 10
    assert found["ragserve_retriever_collections"] == 2


def test_page_is_whole_when_no_replica_answers() -> None:
    found = samples(cluster_metrics(generators=[], embedders=[], retrievers=[], ingresses=[]))
    assert found["ragserve_generator_replicas"] == 0
