"""What one ingress replica counts. Every label has a closed set of values."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from deployments.ingress import entry
from deployments.ingress.presence import Presence

METHODS = frozenset({"GET", "POST", "PATCH", "DELETE"})
DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
CLIENT_GONE = 499


class Metrics:
    """The counters of this process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["route", "method", "status"]
        self._requests = Counter(
            "ragserve_requests", "Requests answered", labels, registry=self.registry
        )
        self._durations = Histogram(
            "ragserve_request_duration_seconds",
            "From the request's headers to the last byte of the answer",
            ["route"],
            buckets=DURATION_BUCKETS_S,
            registry=self.registry,
        )
        self._first_deltas = Histogram(
            "ragserve_time_to_first_delta_seconds",
            "From the request's headers to the first delta of a stream",
            ["route"],
            buckets=DURATION_BUCKETS_S,
            registry=self.registry,
        )
        self._tokens = Counter(
            "ragserve_tokens", "Tokens in and out", ["kind"], registry=self.registry
        )
        self._dropped = Gauge(
            "ragserve_audit_dropped", "Records that found no room", registry=self.registry
        )
        self._limited = Counter(
            "ragserve_limited", "Requests that a limit refused", ["limit"], registry=self.registry
        )
        self._fallbacks = Counter(
            "ragserve_limits_fallbacks",
            "Requests counted on their host alone, for Redis did not answer",
            registry=self.registry,
        )
        self._cached = Counter(
            "ragserve_answers",
            "Answers by how they were had: kept, of a computation under way, or computed",
            ["cache"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "ragserve_requests_in_flight", "Requests being answered", registry=self.registry
        )
        self.waiting = Presence()
        """Of those whose answer takes work."""

    def watch(self, audit: entry.Audit | None) -> None:
        """Show how many records of the audit log this process had to drop."""
        if audit is not None:
            self._dropped.set_function(lambda: audit.num_dropped)

    def count_request(self, route: str, method: str, status: int, duration_s: float) -> None:
        """Count an answered request; `route` is a template, never a path."""
        method = method if method in METHODS else "other"
        self._requests.labels(route, method, f"{status // 100}xx").inc()
        self._durations.labels(route).observe(duration_s)

    def observe_first_delta(self, route: str, duration_s: float) -> None:
        """Record how long a stream's client waited."""
        self._first_deltas.labels(route).observe(duration_s)

    def count_tokens(self, prompt: int, completion: int = 0) -> None:
        """Count the tokens of an answered request, also in its entry of the audit log."""
        self._tokens.labels("prompt").inc(prompt)
        self._tokens.labels("completion").inc(completion)
        entry.count_tokens(prompt, completion)

    def count_limited(self, limit: str) -> None:
        """Count a request that was refused; `limit` is the name of a limit."""
        self._limited.labels(limit.removeprefix("limits.")).inc()

    def count_fallback(self) -> None:
        """Count a request whose limits hold on this host only."""
        self._fallbacks.inc()

    def count_cached(self, outcome: str) -> None:
        """Count an answer; `outcome` is one of the cache's few."""
        self._cached.labels(outcome).inc()

    def text(self) -> bytes:
        """Return the counters in Prometheus' text format."""
        return generate_latest(self.registry)
