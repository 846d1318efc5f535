"""The child process: `python -m deployments.engines.extraction KIND`, file in, JSON out.

It limits itself before it looks at the file, and never writes one.
"""

import json
import resource
import sys
from typing import cast

from deployments.engines.extraction.detection import Kind
from deployments.engines.extraction.extract import extract_kind
from deployments.errors import UnreadableDocument

MAX_MEMORY_BYTES = 1536 * 1024 * 1024
MAX_CPU_S = 20


def main() -> None:
    """Read a file of the kind that the first argument names, and print its text or the error."""
    for limit, value in (
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
        (resource.RLIMIT_CPU, MAX_CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    try:
        extracted = extract_kind(sys.stdin.buffer.read(), cast(Kind, sys.argv[1]))
        answer = {"text": extracted.text, "title": extracted.title}
    except UnreadableDocument as error:
        answer = {"error": error.message}
    except (MemoryError, RecursionError):
        answer = {"error": "the file needs too much memory to be read"}
    sys.stdout.buffer.write(json.dumps(answer, ensure_ascii=False).encode())


main()
