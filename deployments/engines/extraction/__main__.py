"""The child process: `python -m deployments.engines.extraction KIND`, file in, JSON out.

It limits itself before it looks at the file, and never writes one.
"""

import dataclasses
import sys
from typing import Any, cast

from deployments.engines.extraction.detection import Kind
from deployments.engines.extraction.extract import extract_kind
from deployments.engines.sandboxed import answer

MAX_CPU_S = 20


def _extract(data: bytes) -> dict[str, Any]:
    """Return the fields of what a file holds; the first argument names its kind."""
    return dataclasses.asdict(extract_kind(data, cast(Kind, sys.argv[1])))


answer(_extract, MAX_CPU_S)
