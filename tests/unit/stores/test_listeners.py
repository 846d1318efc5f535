from pathlib import Path

from deployments.stores.listeners import announce, announced, forget_all, withdraw


def test_ports_are_known_by_replica_until_they_are_withdrawn(tmp_path: Path) -> None:
    assert announced(tmp_path) == {}
    announce(tmp_path, "a", 1)
    announce(tmp_path, "b", 2)
    announce(tmp_path, "a", 3)
    assert announced(tmp_path) == {"a": 3, "b": 2}
    withdraw(tmp_path, "a")
    withdraw(tmp_path, "a")
    assert announced(tmp_path) == {"b": 2}


def test_what_killed_replicas_left_is_forgotten(tmp_path: Path) -> None:
    forget_all(tmp_path)
    announce(tmp_path, "a", 1)
    forget_all(tmp_path)
    assert announced(tmp_path) == {}
