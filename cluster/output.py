"""What goes to stdout: JSON for scripts, tables for people."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

EXCERPT_CHARS = 120


def print_json(value: object) -> None:
    """Print one JSON value, indented, and nothing else."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_chunks(chunks: Iterable[Mapping[str, Any]], console: Console) -> None:
    """Print chunks, best first: where each is from, its score, and how it begins."""
    table = Table("#", "document", "score", "text")
    for number, chunk in enumerate(chunks, 1):
        place = f"{chunk['document_id']} [{chunk['start']}:{chunk['end']}]"
        text = " ".join(str(chunk["text"]).split())
        excerpt = text if len(text) <= EXCERPT_CHARS else text[:EXCERPT_CHARS] + "…"
        table.add_row(str(number), place, f"{chunk['score']:.3f}", excerpt)
    console.print(table, markup=False)
