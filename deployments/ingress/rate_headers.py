"""How limits stand, in the headers that OpenAI's clients read."""

from deployments.stores.limits.admission import Gauge, Standing

Headers = list[tuple[bytes, bytes]]


def rate_headers(standing: Standing) -> Headers:
    """Return `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, where there is a limit."""
    found: Headers = []
    for kind, gauge in (("requests", standing.requests), ("tokens", standing.tokens)):
        if gauge is not None:
            found += _of(gauge, kind)
    return found


def duration(seconds: float) -> str:
    """Return a time as `1h2m3s`, never too short."""
    whole = max(0, -int(-seconds // 1))
    minutes, seconds_left = divmod(whole, 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes_left}m{seconds_left}s"
    return f"{minutes}m{seconds_left}s" if minutes else f"{seconds_left}s"


def _of(gauge: Gauge, kind: str) -> Headers:
    values = {
        "limit": str(gauge.limit),
        "remaining": str(gauge.remaining),
        "reset": duration(gauge.reset_s),
    }
    return [(f"x-ratelimit-{n}-{kind}".encode(), v.encode()) for n, v in values.items()]
