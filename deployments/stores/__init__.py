"""Durable state and the indexes derived from it; free of Ray and FastAPI."""

import sys

# pyarrow imports pandas wherever that is installed, at 54 MiB a process; nothing here uses it. It
# is installed for Ray Train, whose processes do not import this.
sys.modules.setdefault("pandas", None)  # type: ignore[arg-type]
