import threading
import time

from deployments.stores.database import Database
from deployments.stores.leases import Lease


def test_lease_has_one_holder_until_it_runs_out(database: Database):
    first, second = Lease(database, "l", 0.3), Lease(database, "l", 60)
    assert first.hold()
    assert not second.hold()
    assert first.hold(), "it is renewed"
    time.sleep(0.35)
    assert second.hold()
    assert not first.hold()


def test_lease_is_free_when_it_is_released_by_its_holder_only(database: Database):
    first, second = Lease(database, "l", 60), Lease(database, "l", 60)
    assert first.hold()
    second.release()
    assert not second.hold()
    first.release()
    assert second.hold()
    assert Lease(database, "another", 60).hold()


def test_of_many_at_once_one_holds(database: Database):
    leases = [Lease(database, "l", 60) for _ in range(8)]
    held: list[bool] = []
    threads = [threading.Thread(target=lambda one=one: held.append(one.hold())) for one in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(held) == [False] * 7 + [True]
