"""Downloads go on where they were left, are whole or not there, and end when they stand still."""

import shutil
import time
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from deployments.config import ModelsArgs
from deployments.engines.inspection import fetching as module
from deployments.engines.inspection.fetching import Fetch, Stopped
from deployments.engines.inspection.hub import ask, found, hub_root
from deployments.errors import Conflict, InsufficientResources, InvalidRequest
from tests.unit.engines.inspection.hub_server import COMMIT, Hub

ARGS = ModelsArgs(allow_hub=True)
WEIGHTS = "model.safetensors"


def fetch() -> Fetch:
    return Fetch(ask("org/name", ARGS))


def part() -> Path:
    return hub_root() / "org--name" / f"{COMMIT}.part"


def test_model_is_there_once_it_is_whole(hub: Hub) -> None:
    one = fetch()
    folder = one.run()
    assert found("org/name") == found(f"org/name@{COMMIT}") == folder
    assert found("org/name@v2") is None
    assert (folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert (folder / "1_Pooling/config.json").read_bytes() == b"{}"
    assert not list(folder.glob("*.py")) + list(folder.glob("*.bin"))
    assert one.num_read == one.offer.num_bytes
    assert not part().exists()


@pytest.mark.parametrize("has_ranges", [True, False])
def test_broken_connection_is_taken_up_again(hub: Hub, has_ranges: bool) -> None:
    one = fetch()
    hub.break_after, hub.has_ranges = 300_000, has_ranges
    folder = one.run()
    assert (folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert one.num_read == one.offer.num_bytes
    ranges = [asked for name, asked in hub.asked if name == WEIGHTS]
    assert ranges[0] == "bytes=0-"
    assert len(ranges) == 2


def test_download_goes_on_in_another_process(hub: Hub) -> None:
    part().mkdir(parents=True)
    (part() / WEIGHTS).write_bytes(hub.files[WEIGHTS][:1000])
    fetch().run()
    assert (WEIGHTS, "bytes=1000-") in hub.asked
    assert (found("org/name") or Path()).joinpath(WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_download_that_stands_still_fails(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    one = fetch()
    monkeypatch.setattr(module, "STILL_S", 0.2)
    hub.break_after = 300_000
    hub.gate.clear()
    with pytest.raises(InvalidRequest, match=r"stood still for 0\.2 s"):
        one.run()
    assert found("org/name") is None


def test_hub_that_breaks_again_and_again_is_given_up(hub: Hub) -> None:
    one = fetch()
    hub.status = 500
    with pytest.raises(InvalidRequest, match="cannot be reached"):
        one.run()


def test_stopped_download_leaves_what_came(hub: Hub) -> None:
    one = fetch()
    one.stop()
    with pytest.raises(Stopped):
        one.run()
    assert part().is_dir()
    assert found("org/name") is None
    fetch().run()
    assert found("org/name")


def test_file_with_another_hash_is_not_kept(hub: Hub) -> None:
    hub.hashes[WEIGHTS] = "0" * 64
    with pytest.raises(InvalidRequest, match="another SHA-256"):
        fetch().run()
    assert not (part() / WEIGHTS).exists()
    assert found("org/name") is None


def test_full_disk_is_told_before_anything_is_downloaded(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = fetch()
    hub.asked.clear()
    usage = SimpleNamespace(free=module.SPARE_BYTES + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InsufficientResources, match="of disk"):
        one.run()
    assert hub.asked == []


def test_two_do_not_download_the_same_at_once(hub: Hub) -> None:
    first, second = fetch(), fetch()
    hub.gate.clear()
    hub.break_after = 1000
    thread = Thread(target=first.run)
    thread.start()
    while first.num_read < 1:
        time.sleep(0.01)
    with pytest.raises(Conflict):
        second.run()
    hub.gate.set()
    thread.join()
    assert second.run() == found("org/name")
