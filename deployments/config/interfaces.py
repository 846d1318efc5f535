"""The parts of the HTTP surface that can be left out, and what each of them needs."""

from typing import Literal

Interface = Literal[
    "inference",
    "clean",
    "data",
    "collections",
    "documents",
    "transfer",
    "erasures",
    "chat",
    "completions",
    "embeddings",
    "rerank",
    "dify",
    "models",
    "finetune",
    "keys",
    "audit",
    "totp",
    "feedback",
    "files",
    "tasks",
]
"""Parts of the HTTP surface that can be left out (``ingress/interfaces.py``)."""

GENERATING: frozenset[Interface] = frozenset({"inference", "chat", "completions"})
"""Interfaces that need the generation model."""

RETRIEVING: frozenset[Interface] = frozenset(
    {
        *("data", "collections", "documents", "transfer", "erasures"),
        *("embeddings", "rerank", "dify"),
    }
)
"""Interfaces that need the embedding models and the collections."""

TASKS: frozenset[Interface] = frozenset({"tasks"})
"""Interfaces by which callers follow work that was put off."""

WORKED: frozenset[Interface] = TASKS | {"files"}
"""Interfaces that need the workers."""
