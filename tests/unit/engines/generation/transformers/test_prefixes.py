"""When the cache gives back what it keeps, and for whom it keeps nothing."""

from deployments.engines.generation.transformers.prefixes import Prefixes


class Cache:
    """Counts how often it was emptied."""

    def __init__(self) -> None:
        self.num_emptied = 0

    def evict_cached_blocks(self) -> bool:
        self.num_emptied += 1
        return True


def step(prefixes: Prefixes, cache: Cache) -> bool:
    """Return whether a step emptied the cache."""
    before = cache.num_emptied
    with prefixes.step(cache):
        assert cache.num_emptied == before, "only when the step is done"
    return cache.num_emptied > before


def test_cache_is_left_alone_until_told() -> None:
    prefixes, cache = Prefixes(), Cache()
    prefixes.end("a")
    assert not step(prefixes, cache)


def test_forget_empties_the_cache_once_and_tells() -> None:
    prefixes, cache, told = Prefixes(), Cache(), []
    prefixes.forget([], lambda: told.append(cache.num_emptied))
    assert step(prefixes, cache)
    assert told == [1], "told after it was emptied"
    assert not step(prefixes, cache)


def test_what_ran_then_leaves_nothing_until_the_step_after_its_end() -> None:
    prefixes, cache = Prefixes(), Cache()
    prefixes.forget(["a", "b"], lambda: None)
    assert [step(prefixes, cache) for _ in range(3)] == [True] * 3
    prefixes.end("a")
    assert step(prefixes, cache)
    assert step(prefixes, cache), "b still runs"
    prefixes.end("b")
    assert step(prefixes, cache), "this step frees it"
    assert not step(prefixes, cache)


def test_request_that_passes_by_leaves_nothing() -> None:
    prefixes, cache = Prefixes(), Cache()
    prefixes.pass_by("a")
    assert step(prefixes, cache)
    prefixes.end("a")
    assert step(prefixes, cache)
    assert not step(prefixes, cache)


def test_request_that_comes_and_ends_within_one_step_leaves_nothing() -> None:
    prefixes, cache = Prefixes(), Cache()
    with prefixes.step(cache):
        prefixes.pass_by("a")
        prefixes.end("a")
    assert cache.num_emptied == 1
    assert step(prefixes, cache)
    assert not step(prefixes, cache)
