"""What a running cluster says about itself in `<state>/run.json`."""

import json
from dataclasses import asdict, dataclass

from cluster.errors import OperatorError
from cluster.state import StateFolder, supervisor_pid, write_private


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of `ragserve up`. `phase` is "starting", "ready" or "stopping"."""

    run_id: str
    pid: int
    phase: str
    started_at: str
    config: str
    serve_mode: str
    url: str
    dashboard_url: str
    serve_url: str


def write_record(state: StateFolder, record: RunRecord) -> None:
    """Publish the record for `status`, `down` and `up --detach`."""
    write_private(state.run_file, json.dumps(asdict(record), indent=2) + "\n")


def read_record(state: StateFolder) -> RunRecord | None:
    """Return the record of the last run that was not cleaned up, or None."""
    try:
        return RunRecord(**json.loads(state.run_file.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def running_record(state: StateFolder) -> RunRecord:
    """Return the record of the running cluster.

    Raises:
        OperatorError: nothing runs on this state folder.
    """
    record = read_record(state) if supervisor_pid(state) else None
    if record is None:
        raise OperatorError(f"no cluster is up on {state.path}: start one with `ragserve up`")
    return record
