"""The child's side of ``sandbox.py``: limits, then the work. It imports little, to start fast."""

import json
import resource
import sys
from collections.abc import Callable
from typing import Any

from deployments.errors import UnreadableDocument

MAX_MEMORY_BYTES = 1536 * 1024 * 1024


def answer(work: Callable[[bytes], dict[str, Any]], max_cpu_s: int) -> None:
    """Do a child's work: limit this process, then read what is given and write what `work` says."""
    for limit, value in (
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
        (resource.RLIMIT_CPU, max_cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    try:
        fields = work(sys.stdin.buffer.read())
    except UnreadableDocument as error:
        fields = {"error": error.message}
    except (MemoryError, RecursionError):
        fields = {"error": "the document needs too much memory to be read"}
    sys.stdout.buffer.write(json.dumps(fields, ensure_ascii=False).encode())
