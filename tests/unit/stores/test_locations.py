"""Files below roots: what a caller may name, and how files come to be."""

import os
from pathlib import Path

import pytest

from deployments.errors import Conflict, Forbidden, InvalidRequest, NotFound, RagError
from deployments.stores.database import Database
from deployments.stores.locations import Locations, locations_of
from deployments.stores.parquet_rows import Limits
from deployments.stores.suppressions import Suppressions
from deployments.stores.transfers import Transfers
from tests.unit.stores.material import doc, put


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "default").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    return tmp_path / "root"


@pytest.fixture
def locations(root: Path) -> Locations:
    return locations_of(f" {root} , memory://bucket/prefix,")


def read(locations: Locations, uri: str, tenant: str = "default") -> bytes:
    with locations.reading(uri, tenant) as file:
        return file.read()


def write(locations: Locations, uri: str, content: bytes = b"x", tenant: str = "default") -> None:
    with locations.writing(uri, tenant) as draft:
        draft.write(content)


@pytest.mark.parametrize("scheme", ["", "file://", "memory"])
def test_files_are_written_and_read_below_a_root(locations: Locations, root: Path, scheme: str):
    base = f"memory://bucket/prefix/default/{root.parent.name}"
    if scheme != "memory":
        base = f"{scheme}{root}/default"
    for path in ("one.parquet", "deep/er/two 2.parquet"):
        write(locations, f"{base}/{path}", path.encode())
        assert read(locations, f"{base}/{path}") == path.encode()
        with pytest.raises(Conflict):
            write(locations, f"{base}/{path}", b"again")
        assert read(locations, f"{base}/{path}") == path.encode()
    with pytest.raises(NotFound):
        read(locations, f"{base}/none")


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "{root}",
        "{root}/default",
        "{root}/default/",
        "{root}/other/x",
        "{root}/../outside/secret",
        "{root}/default/../../outside/secret",
        "{root}/default/./x",
        "{root}/default//x",
        "{root}/default/.hidden",
        "{root}/default/a/..",
        "{root}/default/%2e%2e/x",
        "{root}/default/a\\..\\b",
        "{root}/default/a\x00b",
        "{root}/default/a\nb",
        "{root}x/default/y",
        "relative/x",
        "file://host/x",
        "http://127.0.0.1/x",
        "s3://bucket/prefix/default/x",
        "memory://bucket/prefixx/default/x",
        "memory://bucket/prefix/default/../x",
        "memory://bucket/prefix/default/x?endpoint_override=y",
        "memory://bucket/prefix/default/x#y",
        "memory://bucket/prefix/other/x",
        "memory://user:pass@bucket/prefix/default/x",
        "{root}/default/" + "d/" * 40 + "x",
        "",
    ],
)
def test_b5_what_leaves_the_roots_is_refused(locations: Locations, root: Path, uri: str):
    named = uri.replace("{root}", str(root))
    before = sorted(root.parent.rglob("*"))
    with pytest.raises((Forbidden, InvalidRequest)):
        read(locations, named)
    with pytest.raises((Forbidden, InvalidRequest)):
        write(locations, named)
    assert sorted(root.parent.rglob("*")) == before


@pytest.mark.parametrize("kind", ["file", "folder", "deep", "tenant"])
def test_symbolic_links_are_refused(locations: Locations, root: Path, kind: str):
    default, outside = root / "default", root.parent / "outside"
    if kind == "file":
        (default / "x").symlink_to(outside / "secret")
        name = "default/x"
    elif kind == "folder":
        (default / "f").symlink_to(outside)
        name = "default/f/secret"
    elif kind == "deep":
        (default / "a" / "b").mkdir(parents=True)
        (default / "a" / "b" / "c").symlink_to(outside)
        name = "default/a/b/c/secret"
    else:
        default.rmdir()
        default.symlink_to(outside)
        name = "default/secret"
    with pytest.raises(RagError):
        read(locations, f"{root}/{name}")
    with pytest.raises(RagError):
        write(locations, f"{root}/{name}")
    assert (outside / "secret").read_text() == "secret"
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_without_roots_nothing_can_be_named(tmp_path: Path):
    with pytest.raises(Forbidden):
        read(locations_of(""), f"{tmp_path}/default/x")


def test_each_tenant_has_its_own_folder(locations: Locations, root: Path):
    write(locations, f"{root}/acme/x", b"theirs", "acme")
    assert read(locations, f"{root}/acme/x", "acme") == b"theirs"
    with pytest.raises(Forbidden):
        read(locations, f"{root}/acme/x")


def test_file_that_fails_leaves_nothing(locations: Locations, root: Path):
    def fail(uri: str) -> None:
        with locations.writing(uri, "default") as draft:
            draft.write(b"half")
            raise KeyboardInterrupt

    for uri in (f"{root}/default/x", f"memory://bucket/prefix/default/{root.parent.name}/x"):
        with pytest.raises(KeyboardInterrupt):
            fail(uri)
        with pytest.raises(NotFound):
            read(locations, uri)
    assert list((root / "default").iterdir()) == []


def test_full_disk_is_named_and_leaves_nothing(locations: Locations, root: Path):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")

    def fill() -> None:
        with locations.writing(f"{root}/default/x", "default") as draft:
            descriptor = os.open("/dev/full", os.O_WRONLY)
            os.dup2(descriptor, draft._file.fileno())
            os.close(descriptor)
            draft.write(b"x" * 100_000)

    with pytest.raises(RagError) as caught:
        fill()
    assert "No space left" in caught.value.message
    assert list((root / "default").iterdir()) == []


def test_collections_move_by_uri(database: Database, locations: Locations, root: Path):
    put(database, [doc("1", "text"), doc("2", "more")])
    transfers = Transfers(database, locations, Suppressions(bytes(32)))
    uri = f"{root}/default/c.parquet"
    report = transfers.export_to("c", uri, lambda: False)
    assert (report.num_documents, report.num_chunks) == (2, 2)
    assert report.num_bytes == (root / "default" / "c.parquet").stat().st_size
    imported = transfers.import_from("d", uri, Limits(), lambda: False)
    assert imported.num_created == 2
    with pytest.raises(RagError, match="stopped"):
        transfers.export_to("c", f"{root}/default/d.parquet", lambda: True)
    assert [path.name for path in (root / "default").iterdir()] == ["c.parquet"]
