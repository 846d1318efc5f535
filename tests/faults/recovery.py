"""One operation, what it starts from, and what may be found after it was disturbed."""

import shutil
import sqlite3
import subprocess
from pathlib import Path

from tests.faults.contents import Contents, check_search, contents
from tests.faults.operations import OPERATIONS, Stores, prepare
from tests.faults.process import Disturber, Mode, Outcome, url_of


class Scene:
    """Repeats one operation from the same start in `state`, disturbed at different calls."""

    def __init__(self, operation: str, folder: Path, disturber: Disturber) -> None:
        """Learn what the operation does when nothing disturbs it.

        Args:
            operation: a name in `OPERATIONS`.
            folder: empty; the scene's own.
            disturber: runs the operation.
        """
        self._operation, self._folder, self._disturber = operation, folder, disturber
        self._steps = OPERATIONS[operation].steps
        self.state = folder / "state"
        prepare(OPERATIONS[operation].base, url_of(self.state), self.state)
        self._start = self.keep("start")
        self._states = self._undisturbed()
        self.calls = self.disturb(0, Mode.COUNT).calls
        """How many calls change files in one run."""

    def _undisturbed(self) -> list[Contents]:
        """Return what is stored before the first step and after each."""
        stores = Stores(url_of(self.state), self.state)
        states = [contents(stores.url, self.state)]
        for step in self._steps:
            step(stores)
            states.append(contents(stores.url, self.state))
        stores.close()
        return states

    def keep(self, name: str) -> Path:
        """Copy the state as it is now; return the copy."""
        return Path(shutil.copytree(self.state, self._folder / name, dirs_exist_ok=True))

    def restore(self, copy: Path) -> None:
        """Put a copy in place of the state."""
        shutil.rmtree(self.state)
        shutil.copytree(copy, self.state)

    def disturb(self, at: int, mode: Mode, **options: object) -> Outcome:
        """Run the operation from its start."""
        self.restore(self._start)
        if mode == Mode.POWER:
            subprocess.run(
                ["sync", "-f", str(self.state)], check=True
            )  # the start itself is not what may be lost
        return self._disturber.run(self._operation, self.state, at=at, mode=mode, **options)

    def check(self, outcome: Outcome, *, is_deep: bool = True) -> None:
        """Assert that what was acknowledged is there, and whole.

        `is_deep`: also search it, and do the rest of the operation.
        """
        url = url_of(self.state)
        found = contents(url, self.state)
        allowed = self._states[outcome.acknowledged : outcome.acknowledged + 2]
        assert found in allowed, f"neither before nor after a step: {outcome}"
        check_integrity(self.state / "test.db")
        if not is_deep:
            return
        check_search(url, found)
        done = outcome.acknowledged + allowed.index(found)
        rest = self._disturber.run(self._operation, self.state, first=done)
        assert (rest.failed, rest.status, rest.signal) == (None, 0, 0)
        assert contents(url, self.state) == self._states[-1]

    def check_end(self, *, is_searched: bool = True) -> None:
        """Assert that everything is as if nothing had disturbed the operation."""
        assert contents(url_of(self.state), self.state) == self._states[-1]
        check_integrity(self.state / "test.db")
        if is_searched:
            check_search(url_of(self.state), self._states[-1])


def check_integrity(path: Path) -> None:
    """Assert that SQLite finds its file sound, and every reference."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        connection.close()
