from pathlib import Path

from deployments.engines.heap import trim

MIB = 1 << 20


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def test_trim_gives_freed_memory_back() -> None:
    trim()
    blocks = [bytearray(64_000) for _ in range(2000)]
    last = bytearray(64_000)  # the newest block keeps the heap from shrinking by itself
    blocks.clear()
    before = resident()
    trim()
    assert before - resident() > 60 * MIB
    assert len(last) == 64_000
