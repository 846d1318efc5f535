"""The child process: `python -m deployments.engines.cleaning JOB`, JSON in, JSON out.

`clean` cleans drafts one by one; `compare` finds texts that repeat an earlier one.
"""

import dataclasses
import json
import sys
from typing import Any

from deployments.engines.cleaning.cleaner import clean, compare
from deployments.engines.cleaning.options import CleanOptions, Draft
from deployments.engines.sandboxed import answer

MAX_CPU_S = 60


def _work(data: bytes) -> dict[str, Any]:
    asked = json.loads(data)
    options = CleanOptions(**asked["options"])
    if sys.argv[1] == "compare":
        matches = compare(asked["texts"], options)
        return {"matches": [match and dataclasses.asdict(match) for match in matches]}
    drafts = (Draft(*draft) for draft in asked["drafts"])
    return {"cleaned": [dataclasses.asdict(clean(draft, options)) for draft in drafts]}


answer(_work, MAX_CPU_S)
