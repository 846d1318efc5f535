"""Orders for tasks, made of requests."""

import time
from datetime import datetime
from typing import Any

import orjson

from deployments.config import TasksArgs
from deployments.ingress.auth import Key
from deployments.ingress.generation import RAG_PREFIX
from deployments.ingress.schemas.tasks import OPTIONS, AsyncInference, TaskOptions
from deployments.stores.paths import path_of
from deployments.types.tasks import TaskOrder

INFERENCE = "/v1/inference"
INDEX = "/v1/data/index"


def inference_order(
    key: Key, body: AsyncInference, value: dict[str, Any], args: TasksArgs
) -> TaskOrder:
    """Return the order for an inference.

    Args:
        key: of whoever asks.
        body: the request.
        value: the same as it came.
        args: bounds.
    """
    asked = {name: given for name, given in value.items() if name not in OPTIONS}
    collection = body.retrieval.collection if body.retrieval else ""
    if not collection and (body.model or "").startswith(RAG_PREFIX):
        collection = (body.model or "").removeprefix(RAG_PREFIX)
    return _order(key, INFERENCE, orjson.dumps(asked), collection, body, args, bool(body.stream))


def index_order(key: Key, collection: str, body: bytes, args: TasksArgs) -> TaskOrder:
    """Return the order for indexing documents."""
    return _order(key, INDEX, body, collection, TaskOptions(), args, False)


def _order(
    key: Key,
    path: str,
    body: bytes,
    collection: str,
    options: TaskOptions,
    args: TasksArgs,
    is_streamed: bool,
) -> TaskOrder:
    not_before = options.not_before
    begin = 0.0 if not_before is None else datetime.fromisoformat(not_before).timestamp()
    return TaskOrder(
        tenant=key.tenant,
        key_id=key.id,
        path=path,
        body=body,
        collection=path_of(key.tenant, collection) if collection else "",
        is_streamed=is_streamed,
        priority=options.priority,
        not_before=begin,
        deadline=0.0 if options.deadline_s is None else time.time() + options.deadline_s,
        kept_s=min(options.keep_s or args.kept_s, args.max_kept_s),
        webhook=options.webhook or "",
    )
