"""`POST /v1/embeddings`."""

import base64
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from deployments.ingress.access import guarded
from deployments.ingress.generation import version_of
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.embeddings import EmbeddingRequest
from deployments.ingress.schemas.responses import Embeddings
from deployments.ingress.services import Services, json_response
from deployments.stores.content import invalid
from deployments.types import Vectors


def embeddings_router(services: Services) -> APIRouter:
    """Return the embeddings route."""
    router = guarded(tags=["OpenAI"])
    described = describe("createEmbedding", EmbeddingRequest, Embeddings, errors=(404, 502))

    @router.post("/v1/embeddings", **described)
    async def create_embedding(request: Request) -> Response:
        """Embed texts; `base64` is little-endian float32."""
        body = await services.read(request, EmbeddingRequest)
        graph = services.graph_of(request)
        model = await version_of(graph, body.model, "embedding", graph.embedding_models)
        await services.reserve(request, body.texts(), param="input")
        timeout_s = services.args.request_timeout_s
        vectors, num_tokens = await graph.embed(body.texts(), model=model, timeout_s=timeout_s)
        if body.dimensions not in {None, vectors.shape[1]}:
            message = f"the model's vectors have {vectors.shape[1]} dimensions"
            raise invalid(message, "dimensions")
        total = sum(num_tokens)
        services.count_tokens(request, total)
        embeddings = _encoded(vectors, is_base64=body.encoding_format == "base64")
        data = [
            {"object": "embedding", "index": index, "embedding": embedding}
            for index, embedding in enumerate(embeddings)
        ]
        usage = {"prompt_tokens": total, "total_tokens": total}
        return json_response({"object": "list", "data": data, "model": body.model, "usage": usage})

    return router


def _encoded(vectors: Vectors, *, is_base64: bool) -> list[Any]:
    rows = np.ascontiguousarray(vectors, dtype="<f4")
    if is_base64:
        return [base64.b64encode(row.tobytes()).decode("ascii") for row in rows]
    return list(rows)
