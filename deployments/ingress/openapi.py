"""The OpenAPI description: bodies, answers, every error, the key.

Routes read and write their JSON themselves, so its schemas are put in here and not by FastAPI,
which would build a validator for each of them.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from deployments.ingress.access import PUBLIC, RULES
from deployments.ingress.schemas import (
    audit,
    batch_states,
    cleaned,
    compatible,
    feedback_states,
    generated,
    keys,
    model_states,
    receipts,
    responses,
    second_factors,
    stored,
    task_states,
    transfer,
    tuning_states,
    webhooks,
)
from deployments.ingress.schemas.base import Schema
from deployments.ingress.schemas.batches import CreateBatch
from deployments.ingress.schemas.cleaning import CleanRequest
from deployments.ingress.schemas.collections import CreateCollection, UpdateCollection
from deployments.ingress.schemas.data import IndexRequest, VectorizeRequest
from deployments.ingress.schemas.dify import DifyRetrieval
from deployments.ingress.schemas.embeddings import EmbeddingRequest
from deployments.ingress.schemas.erasures import EraseRequest
from deployments.ingress.schemas.feedback import GiveFeedback
from deployments.ingress.schemas.keys import CreateKey, RotateKey
from deployments.ingress.schemas.models import LoadModel, SwitchModel, UnloadModel
from deployments.ingress.schemas.native import InferenceRequest
from deployments.ingress.schemas.openai import ChatCompletionRequest, CompletionRequest
from deployments.ingress.schemas.rerank import RerankRequest, TeiRerankRequest
from deployments.ingress.schemas.responses import ErrorResponse
from deployments.ingress.schemas.search import SearchBody
from deployments.ingress.schemas.second_factors import ConfirmFactor
from deployments.ingress.schemas.tasks import AsyncInference, BatchInference
from deployments.ingress.schemas.transfer import ExportRequest, ImportRequest
from deployments.ingress.schemas.tunings import FinetuneModel

BODIES: tuple[type[BaseModel], ...] = (
    AsyncInference,
    BatchInference,
    ChatCompletionRequest,
    CleanRequest,
    CompletionRequest,
    ConfirmFactor,
    CreateBatch,
    CreateCollection,
    CreateKey,
    DifyRetrieval,
    EmbeddingRequest,
    ExportRequest,
    ImportRequest,
    EraseRequest,
    FinetuneModel,
    GiveFeedback,
    IndexRequest,
    InferenceRequest,
    LoadModel,
    RerankRequest,
    RotateKey,
    SearchBody,
    SwitchModel,
    TeiRerankRequest,
    UnloadModel,
    UpdateCollection,
    VectorizeRequest,
)
ANSWERS: tuple[type[BaseModel], ...] = tuple(
    model
    for module in (
        audit,
        batch_states,
        cleaned,
        compatible,
        feedback_states,
        generated,
        keys,
        model_states,
        receipts,
        responses,
        second_factors,
        stored,
        task_states,
        transfer,
        tuning_states,
        webhooks,
    )
    for model in vars(module).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and model is not BaseModel
    if not issubclass(model, Schema)
)
REF = "#/components/schemas/{model}"
KEY = {"type": "http", "scheme": "bearer", "description": "A key of this installation"}
ERRORS = {
    400: "The request is malformed or asks for what cannot be done",
    401: "No valid key came with the request",
    403: "The key does not cover this (Dify's form: no valid key came with the request)",
    404: "The named thing does not exist",
    409: "The thing exists already",
    413: "The body or a document is too large",
    422: "A file could not be turned into text",
    424: "The model failed (TEI's form)",
    429: "A limit has no room for the request now (TEI's form: or everything is busy)",
    500: "Our fault",
    507: "The machines have too little free for the model",
    502: "A model's replica was lost; safe to retry",
    503: "Everything is busy, or the database does not answer; retry later",
    504: "The request did not finish before its deadline",
}

RATE_HEADERS: dict[str, Any] = {
    "Retry-After": {
        "description": "Seconds until there is room",
        "schema": {"type": "integer", "minimum": 1},
    },
    **{
        f"x-ratelimit-{what}-{kind}": {
            "description": f"Of {kind}: {description}; also with what is answered",
            "schema": {"type": "string"},
        }
        for kind in ("requests", "tokens")
        for what, description in (
            ("limit", "the tightest limit"),
            ("remaining", "what is left of it"),
            ("reset", "how long until nothing of it is used, such as `1m5s`"),
        )
    },
}


def describe(
    operation_id: str,
    body: type[BaseModel] | None = None,
    answer: type[BaseModel] | None = None,
    *,
    is_stream: bool = False,
    errors: tuple[int, ...] = (),
    is_long: bool = False,
    later: type[BaseModel] | None = None,
    message: str = "",
    status: int = 200,
) -> dict[str, Any]:
    """Return the keyword arguments that describe a route to FastAPI.

    `is_long`: the answer may come with 202 before the work is done; `later`: that is answered then
    in place of it. `message`: what the answer is
    in Protobuf, where that is spoken.
    """
    success: dict[str, Any] = {"description": "Done", "content": {}}
    if answer is not None:
        success["content"] |= json_of(answer)
    if is_stream:
        success["content"]["text/event-stream"] = {}
    accepted = {202: success | {"description": "Some of the work is left"}} if is_long else {}
    if later is not None:
        accepted = {202: {"description": "It is done as a task", "content": json_of(later)}}
    rule = RULES.get(operation_id)
    is_public, is_scoped = rule is PUBLIC, isinstance(rule, str)
    extra: dict[str, Any] = {"security": []} if is_public else {}
    if is_scoped:
        extra["x-required-scope"] = rule
    if body is not None:
        extra["requestBody"] = {"required": True, "content": json_of(body)}
    if message:
        extra["requestBody"]["content"] |= _protobuf_of(f"{message}Request")
        success["content"] |= _protobuf_of(f"{message}Response")
    statuses = {*errors} if is_public else {*errors, 400, 401, 413, 429, 500, 503, 504}
    statuses |= {403} if is_scoped else set()
    error = json_of(ErrorResponse) | (_protobuf_of("Error") if message else {})
    refused: dict[int, dict[str, Any]] = {
        one: {"description": ERRORS[one], "content": error} for one in sorted(statuses)
    }
    if 429 in refused:
        refused[429]["headers"] = RATE_HEADERS
    return {
        "operation_id": operation_id,
        "openapi_extra": extra,
        "response_model": None,
        "status_code": status,
        "responses": {status: success, **accepted, **refused},
    }


def json_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the `content` of a JSON body; `openapi_of` puts the schema itself in place."""
    return {"application/json": {"schema": {"$ref": REF.format(model=model.__name__)}}}


def _protobuf_of(message: str) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary", "description": f"`{message}` of `dify.proto`"}
    return {"application/x-protobuf": {"schema": schema}}


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """Return the whole description."""
    description = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = description.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    models = [(model, "validation") for model in (*BODIES, *ANSWERS)]
    _, definitions = models_json_schema(models, ref_template=REF)  # type: ignore[arg-type]
    schemas.update(definitions["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {"key": KEY}
    description["security"] = [{"key": []}]
    for path in description["paths"].values():
        for operation in path.values():
            _drop_default_422(operation["responses"])
    return description


def _drop_default_422(responses: dict[str, Any]) -> None:
    """FastAPI documents its own validation error, which is a 400 here."""
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
