import multiprocessing
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from deployments.errors import Conflict, InvalidRequest, NotFound, RagError, Unauthenticated
from deployments.stores import key_rows
from deployments.stores import keys as module
from deployments.stores.database import Database
from deployments.stores.ids import utc_after
from deployments.stores.keys import BEARER, KeyStore
from deployments.stores.pepper import pepper
from deployments.types.access import SCOPES, Grants, Limits
from tests.unit.stores.material import FORKSERVER


@pytest.fixture
def store(database: Database, tmp_path: Path) -> KeyStore:
    return KeyStore(database, tmp_path / "state")


def other(bearer: str) -> str:
    return bearer[:-1] + ("A" if bearer[-1] != "A" else "B")


def test_created_key_is_verified(store: KeyStore):
    key, bearer = store.create("ci", is_admin=True)
    assert BEARER.fullmatch(bearer)
    assert key.id.startswith("key_")
    assert store.verify(bearer) == key
    assert store.verify(bearer).is_admin


def test_secrets_have_256_bits_and_differ(store: KeyStore):
    bearers = {store.create("x")[1] for _ in range(20)}
    assert len({bearer.split("_", 2)[2] for bearer in bearers}) == 20


@pytest.mark.parametrize(
    "bearer",
    [
        "",
        "rs_",
        "rs_x_y",
        f"rs_{'0' * 32}_{'A' * 43}",
        f"rs_{'0' * 32}_{'é' * 43}",
        "\ud800",
        "\x00",
    ],
)
def test_unknown_bearer_is_refused(store: KeyStore, bearer: str):
    with pytest.raises(Unauthenticated) as caught:
        store.verify(bearer)
    assert caught.value.message == "the API key is not valid"


def test_wrong_secret_is_refused_cached_or_not(store: KeyStore):
    _, bearer = store.create("x")
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            store.verify(other(bearer))
    assert store.verify(bearer)


def test_every_refusal_hashes_and_compares_once(store: KeyStore, monkeypatch):
    _, live = store.create("x")
    revoked_key, revoked = store.create("y")
    store.revoke(revoked_key.id)
    compared: list[tuple[int, int]] = []
    real = module.hmac.compare_digest
    monkeypatch.setattr(
        module.hmac,
        "compare_digest",
        lambda a, b: compared.append((len(a), len(b))) or real(a, b),
    )
    for bearer in (other(live), revoked, f"rs_{'0' * 32}_{'A' * 43}"):
        for _ in range(2):
            with pytest.raises(Unauthenticated):
                store.verify(bearer)
    assert compared == [(32, 32)] * 6


def test_no_hash_matches_the_one_of_unknown_ids(store: KeyStore, monkeypatch):
    monkeypatch.setattr(KeyStore, "_hash", lambda *_: bytes(32))
    with pytest.raises(Unauthenticated):
        store.verify(f"rs_{'0' * 32}_{'A' * 43}")


def test_secret_is_not_in_the_files(store: KeyStore, database_bytes: Callable[[], bytes]):
    bearers = [store.create("x")[1] for _ in range(5)]
    for bearer in bearers:
        store.verify(bearer)
    stored = database_bytes()
    assert b"keys" in stored
    for bearer in bearers:
        assert bearer.split("_", 2)[2].encode() not in stored


def test_revoked_key_is_refused_at_once_here_and_within_a_second_elsewhere(
    store: KeyStore, database: Database, tmp_path: Path
):
    store.create("admin", is_admin=True)
    key, bearer = store.create("x")
    replica = KeyStore(database, tmp_path / "state")
    assert replica.verify(bearer) == key
    assert store.revoke(key.id).revoked_at is not None
    revoked_at_s = time.monotonic()
    with pytest.raises(Unauthenticated):
        store.verify(bearer)
    while time.monotonic() - revoked_at_s < 1.0:
        try:
            replica.verify(bearer)
        except Unauthenticated:
            break
        time.sleep(0.02)
    else:
        pytest.fail("still accepted")


def test_revoking_again_keeps_the_time(store: KeyStore):
    key, _ = store.create("x")
    first = store.revoke(key.id)
    assert store.revoke(key.id) == first
    assert store.list() == [first]


def test_revoking_an_unknown_key_is_not_found(store: KeyStore):
    with pytest.raises(NotFound):
        store.revoke("key_0")


def test_last_admin_key_cannot_be_revoked(store: KeyStore):
    first, _ = store.create("a", is_admin=True)
    with pytest.raises(Conflict):
        store.revoke(first.id)
    second, _ = store.create("b", is_admin=True)
    store.revoke(first.id)
    with pytest.raises(Conflict):
        store.revoke(second.id)


def test_recall_answers_from_memory_only(store: KeyStore, database: Database):
    key, bearer = store.create("x")
    statements: list[str] = []
    event.listen(
        database._engine, "before_cursor_execute", lambda *args: statements.append(args[2])
    )
    assert store.recall(bearer) is None
    assert store.verify(bearer) == key
    statements.clear()
    assert store.recall(bearer) == key
    with pytest.raises(Unauthenticated):
        store.recall(other(bearer))
    assert statements == []


def test_cache_is_bounded(store: KeyStore, monkeypatch):
    monkeypatch.setattr(module, "MAX_CACHED", 10)
    for number in range(30):
        with pytest.raises(Unauthenticated):
            store.verify(f"rs_{number:032x}_{'A' * 43}")
    assert len(store._cache) <= 10


@pytest.mark.parametrize("name", ["", "x" * 201, "a\x00", "\udfff"])
def test_key_names_are_checked(store: KeyStore, name: str):
    with pytest.raises(InvalidRequest) as caught:
        store.create(name)
    assert caught.value.param == "name"


def test_pepper_is_private_and_kept(store: KeyStore, database: Database, tmp_path: Path):
    path = tmp_path / "state" / "pepper"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    _, bearer = store.create("x")
    assert KeyStore(database, tmp_path / "state").verify(bearer)
    path.write_bytes(bytes(32))
    with pytest.raises(Unauthenticated):
        KeyStore(database, tmp_path / "state").verify(bearer)


def test_damaged_pepper_is_said(store: KeyStore, database: Database, tmp_path: Path):
    (tmp_path / "state" / "pepper").write_bytes(b"short")
    with pytest.raises(RagError, match="pepper"):
        KeyStore(database, tmp_path / "state")


def _first_pepper(folder: Path, results: multiprocessing.SimpleQueue) -> None:
    results.put(pepper(folder))


def test_processes_that_start_at_once_share_one_pepper(tmp_path: Path):
    results = FORKSERVER.SimpleQueue()
    processes = [
        FORKSERVER.Process(target=_first_pepper, args=(tmp_path, results)) for _ in range(8)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert len({results.get() for _ in processes}) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["pepper"]


def test_key_has_its_tenant(store: KeyStore):
    key, bearer = store.create("x", tenant="acme")
    other_key, other_bearer = store.create("y")
    assert (store.verify(bearer), store.recall(bearer)) == (key, key)
    assert (key.tenant, store.verify(other_bearer).tenant) == ("acme", "default")
    assert [one.tenant for one in store.list()] == ["acme", "default"]
    assert store.revoke(key.id).tenant == "acme"
    with pytest.raises(InvalidRequest) as caught:
        store.create("z", tenant="a/b")
    assert caught.value.param == "tenant"
    assert other_key.tenant == "default"


def set_clock(monkeypatch: pytest.MonkeyPatch, now: str) -> None:
    for one in (module, key_rows):
        monkeypatch.setattr(one, "utc_now", lambda: now)


GRANTS = Grants(
    scopes=("inference", "models"),
    models=("m@1", "chat"),
    collections=("docs",),
    addresses=("10.0.0.0/8", "2001:db8::1"),
    limits=Limits(requests_per_minute=60, max_concurrent=2),
)


def test_grants_are_kept_as_they_were_given(store: KeyStore):
    key, bearer = store.create("x", grants=GRANTS, tenant="acme")
    assert store.verify(bearer) == key
    assert store.list() == [key]
    assert key.grants == GRANTS
    assert [scope for scope in SCOPES if key.has(scope)] == ["inference", "models"]
    admin, _ = store.create("a", is_admin=True, grants=Grants(scopes=("data",)))
    assert all(map(admin.has, SCOPES))


@pytest.mark.parametrize(
    ("grants", "param"),
    [
        ({"scopes": ()}, "scopes"),
        ({"scopes": ("inference", "everything")}, "scopes"),
        ({"models": ()}, "models"),
        ({"models": ("",)}, "models"),
        ({"models": ("x" * 257,)}, "models"),
        ({"models": ("a\0b",)}, "models"),
        ({"collections": ("a/b",)}, "collections"),
        ({"collections": tuple(f"c{number}" for number in range(257))}, "collections"),
        ({"addresses": ("10.0.0.1/8",)}, "addresses"),
        ({"addresses": ("localhost",)}, "addresses"),
        ({"addresses": ("::ffff:10.0.0.1/200",)}, "addresses"),
        ({"limits": Limits(requests_per_minute=0)}, "limits.requests_per_minute"),
        ({"limits": Limits(tokens_per_day=-1)}, "limits.tokens_per_day"),
    ],
)
def test_what_no_key_can_have_is_refused(store: KeyStore, grants: dict[str, Any], param: str):
    with pytest.raises(InvalidRequest) as caught:
        store.create("x", grants=Grants(**grants))
    assert caught.value.param == param
    assert store.list() == []


def test_expired_key_is_refused_cached_or_not(store: KeyStore, monkeypatch: pytest.MonkeyPatch):
    key, bearer = store.create("x", expires_at="2100-01-01T01:00:00+01:00")
    assert key.expires_at == "2100-01-01T00:00:00.000000Z"
    assert store.verify(bearer) == key
    set_clock(monkeypatch, "2099-12-31T23:59:59.999999Z")
    assert store.recall(bearer) == key
    set_clock(monkeypatch, "2100-01-01T00:00:00.000000Z")
    for ask in (store.recall, store.verify):
        with pytest.raises(Unauthenticated) as caught:
            ask(bearer)
        assert caught.value.message == "the API key is not valid"


@pytest.mark.parametrize("time_", ["", "tomorrow", "2100-01-01T00:00:00", "2000-01-01T00:00:00Z"])
def test_expiry_that_is_none_or_over_is_refused(store: KeyStore, time_: str):
    with pytest.raises(InvalidRequest) as caught:
        store.create("x", expires_at=time_)
    assert caught.value.param == "expires_at"


def test_rotated_key_covers_the_same_and_the_old_one_ends(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
):
    old, bearer = store.create("x", grants=GRANTS, tenant="acme")
    new, new_bearer = store.rotate(old.id, overlap_s=60)
    assert (new.name, new.tenant, new.grants, new.expires_at) == ("x", "acme", GRANTS, None)
    assert store.verify(new_bearer) == new
    assert store.verify(bearer).expires_at
    until = utc_after(61)
    set_clock(monkeypatch, until)
    assert store.verify(new_bearer) == new
    with pytest.raises(Unauthenticated):
        store.verify(bearer)
    with pytest.raises(Conflict):
        store.rotate(old.id, overlap_s=60)


def test_rotation_without_overlap_ends_the_old_key_at_once(store: KeyStore):
    old, bearer = store.create("x")
    store.verify(bearer)
    store.rotate(old.id, overlap_s=0)
    with pytest.raises(Unauthenticated):
        store.verify(bearer)


def test_rotation_never_lengthens_a_life(store: KeyStore):
    old, _ = store.create("x", expires_at=utc_after(10))
    new, _ = store.rotate(old.id, overlap_s=86_400)
    assert new.expires_at == old.expires_at
    assert {key.expires_at for key in store.list()} == {old.expires_at}


def test_key_that_is_gone_is_not_rotated(store: KeyStore):
    with pytest.raises(NotFound):
        store.rotate(f"key_{'0' * 32}", overlap_s=0)
    store.create("admin", is_admin=True)
    key, _ = store.create("x")
    store.revoke(key.id)
    with pytest.raises(Conflict):
        store.rotate(key.id, overlap_s=0)
    for overlap_s in (-1, 31 * 86_400):
        with pytest.raises(InvalidRequest):
            store.rotate(key.id, overlap_s=overlap_s)


def test_expired_admin_does_not_count_as_one_that_works(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
):
    last, _ = store.create("a", is_admin=True)
    store.create("b", is_admin=True, expires_at=utc_after(10))
    until = utc_after(11)
    set_clock(monkeypatch, until)
    with pytest.raises(Conflict):
        store.revoke(last.id)
