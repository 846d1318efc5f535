"""The code blocks of a Markdown page, and running them as a reader would."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.stack import ROOT, Stack

SKIPPED = re.compile(r"<!--\s*not executed:\s*\S.*-->")
FENCE = re.compile(r"^```(\w*)")
STARTS_OR_STOPS = re.compile(r"^\s*(ragserve (up|down)|make)\b", re.MULTILINE)
CALLS = re.compile(r"^[^#\n]*\b(curl|ragserve) ", re.MULTILINE)
BLOCK_TIMEOUT_S = 120


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its code, and the line of the page where it begins."""

    language: str
    code: str
    line: int
    is_skipped: bool = False

    @property
    def is_executable(self) -> bool:
        """Return whether a reader would paste it: Python, or a shell block that calls a server."""
        calls = self.language == "bash" and CALLS.search(self.code) is not None
        return not self.is_skipped and (calls or self.language == "python")


def blocks(page: str) -> list[Block]:
    """Return all fenced blocks of a page, in order.

    Raises:
        ValueError: the last block has no end.
    """
    found: list[Block] = []
    before = ""
    lines = enumerate(page.splitlines(), start=1)
    for number, line in lines:
        fence = FENCE.match(line)
        if fence is None:
            before = line if line.strip() else before
            continue
        code = []
        for _, inner in lines:
            if inner.startswith("```"):
                break
            code.append(inner)
        else:
            raise ValueError(f"the block of line {number} has no end")
        is_skipped = SKIPPED.fullmatch(before.strip()) is not None
        found.append(Block(fence[1], "\n".join(code) + "\n", number, is_skipped))
        before = ""
    return found


def reader(stack: Stack, folder: Path) -> dict[str, str]:
    """Prepare a folder that looks like the checkout, and return the environment of a reader."""
    commands = folder / ".bin"
    commands.mkdir()
    shim = commands / "ragserve"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cluster.cli "$@"\n')
    shim.chmod(0o755)
    for entry in ROOT.iterdir():
        if entry.is_dir() and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
        elif entry.is_file():
            shutil.copy(entry, folder)
    path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), stack.env["PATH"]])
    return {
        **stack.env,
        "PATH": path,
        "RAGSERVE_URL": stack.url,
        "RAGSERVE_API_KEY": stack.key,
    }


def failure_of(block: Block, env: dict[str, str], folder: Path) -> str | None:
    """Run a block; return what went wrong, or None."""
    if STARTS_OR_STOPS.search(block.code):
        return "it starts or stops a server; mark it `<!-- not executed: reason -->`"
    bash = ["bash", "-euo", "pipefail", "-c", block.code]
    command = bash if block.language == "bash" else [sys.executable, "-c", block.code]
    try:
        done = subprocess.run(
            command, env=env, cwd=folder, capture_output=True, text=True, timeout=BLOCK_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"it ran for more than {BLOCK_TIMEOUT_S} s"
    output = done.stdout + done.stderr
    if done.returncode != 0:
        return f"exit code {done.returncode}: {output[-600:]}"
    if re.search(r'"error": ?\{', output):
        return f"it printed an error: {output[-600:]}"
    return None
