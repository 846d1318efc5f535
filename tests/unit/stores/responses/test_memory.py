"""Answers in memory: how long, and how many."""

from deployments.stores.responses.memory import ENTRY_BYTES, MemoryResponses


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_value_is_kept_until_its_time_is_over() -> None:
    clock = Clock()
    store = MemoryResponses(10_000, clock=clock)
    await store.put("a", b"value", 5)
    clock.now += 4.9
    assert await store.get("a") == b"value"
    clock.now += 0.1
    assert await store.get("a") is None
    assert store.num_bytes == 0


async def test_what_was_used_longest_ago_goes_first() -> None:
    store = MemoryResponses(2 * (ENTRY_BYTES + 10))
    await store.put("a", b"a" * 10, 60)
    await store.put("b", b"b" * 10, 60)
    await store.get("a")
    await store.put("c", b"c" * 10, 60)
    assert [await store.get(key) for key in "abc"] == [b"a" * 10, None, b"c" * 10]
    assert store.num_bytes == 2 * (ENTRY_BYTES + 10)


async def test_value_larger_than_the_room_is_not_kept_and_drives_nothing_out() -> None:
    store = MemoryResponses(ENTRY_BYTES + 10)
    await store.put("a", b"a", 60)
    await store.put("b", b"b" * 11, 60)
    assert await store.get("a") == b"a"
    assert await store.get("b") is None


async def test_new_value_takes_the_place_of_the_old() -> None:
    store = MemoryResponses(10_000)
    await store.put("a", b"old value", 60)
    await store.put("a", b"new", 60)
    assert await store.get("a") == b"new"
    assert store.num_bytes == ENTRY_BYTES + 3


async def test_clear_removes_everything() -> None:
    store = MemoryResponses(10_000)
    await store.put("a", b"value", 60)
    await store.clear()
    assert await store.get("a") is None
    assert store.num_bytes == 0
