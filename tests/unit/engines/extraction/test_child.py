"""The child process: limits, time, cancellation, and what of it reaches a caller."""

import asyncio
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deployments.engines import sandbox
from deployments.engines.extraction.child import extract_in_child
from deployments.engines.extraction.document import Extracted
from deployments.errors import Overloaded, UnreadableDocument

from .documents import ARABIC, EMOJI, archive, pdf, word


def children() -> list[psutil.Process]:
    """Return the extraction children; other tests may have left other processes."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "deployments.engines.extraction" in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


async def test_child_reads_like_the_parent() -> None:
    texts = await asyncio.gather(
        extract_in_child(pdf("a page"), "a.pdf"),
        extract_in_child(word(EMOJI, ARABIC, title="t"), "b.docx"),
        extract_in_child(b"<html><body><p>hello</p></body></html>", "c.html"),
    )
    assert [extracted.text for extracted in texts] == ["a page", f"{EMOJI}\n\n{ARABIC}", "hello"]
    assert texts[1].title == "t"
    assert children() == []


async def test_child_is_not_started_for_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert (await extract_in_child(b"# hi\n\nthere", "a.md")).title == "hi"


async def test_child_passes_on_what_is_wrong() -> None:
    with pytest.raises(UnreadableDocument, match="encrypted"):
        await extract_in_child(pdf("secret", encrypt="password"), "a.pdf")
    with pytest.raises(UnreadableDocument, match="far more"):
        await extract_in_child(archive(word__document_xml=bytes(50_000_000)), "a.docx")


async def test_child_is_killed_when_time_is_up() -> None:
    with pytest.raises(UnreadableDocument, match="too long"):
        await extract_in_child(pdf("a page"), "a.pdf", timeout_s=0.01)
    assert children() == []


async def test_child_is_killed_with_its_caller() -> None:
    task = asyncio.create_task(extract_in_child(pdf("a page"), "a.pdf"))
    while not children():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == []


async def test_child_lacks_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSERVE_DATABASE_URL", "secret")
    assert set(sandbox._environment()) == {"PYTHONPATH", "PATH", "LANG"}


async def test_child_limits_how_many_run_and_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_WAITING", 1)
    page = pdf("a page")
    tasks = [asyncio.create_task(extract_in_child(page, "a.pdf")) for _ in range(6)]
    most = 0
    while not all(task.done() for task in tasks):
        most = max(most, len(children()))
        await asyncio.sleep(0.005)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert most == sandbox.MAX_CHILDREN
    assert {type(result) for result in results} == {Extracted, Overloaded}


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (
            "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass",
            "long",
        ),
        ("import sys; sys.stderr.write('private'); sys.exit(3)", "could not be read"),
        ("print('not json')", "could not be read"),
        ("import os; os.kill(os.getpid(), 11)", "could not be read"),
    ],
)
async def test_child_that_dies_becomes_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, what: str
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\n{code}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(UnreadableDocument, match=what) as caught:
        await extract_in_child(pdf("a page"), "a.pdf")
    assert "private" not in caught.value.message


def test_child_limits_itself_before_it_reads() -> None:
    code = """
import resource, sys
sys.argv = ["extraction", "text"]
import deployments.engines.extraction.__main__
print()
print([resource.getrlimit(limit)[1] for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU)])
try:
    bytearray(2 * 1024**3)
except MemoryError:
    print("refused")
"""
    run = subprocess.run(
        [sys.executable, "-c", code], input=b"words", capture_output=True, check=True
    )
    assert run.stdout.splitlines()[-2:] == [f"[{1536 * 1024**2}, 20]".encode(), b"refused"]


def test_child_imports_neither_torch_nor_ray() -> None:
    code = """
import sys
sys.argv = ["extraction", "pdf"]
import deployments.engines.extraction.__main__
heavy = {"torch", "ray", "numpy", "transformers", "trafilatura"}
print(sorted(heavy & set(sys.modules)))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], input=pdf("a page"), capture_output=True, check=True
    )
    assert run.stdout.endswith(b"[]\n")
