"""`POST /v1/chat/completions`."""

import time
from typing import Any

from fastapi import APIRouter, Request, Response

from deployments.ingress.access import guarded
from deployments.ingress.generation import Answer
from deployments.ingress.ids import derived_id
from deployments.ingress.openai.chat_stream import ChatStream
from deployments.ingress.openai.logprobs import chat_logprobs
from deployments.ingress.openai.usage import usage_of
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.generated import ChatCompletion
from deployments.ingress.schemas.openai import ChatCompletionRequest
from deployments.ingress.services import Services, json_response, sources_of


def chat_router(services: Services) -> APIRouter:
    """Return the chat route."""
    router = guarded(tags=["OpenAI"])

    described = describe(
        "createChatCompletion",
        ChatCompletionRequest,
        ChatCompletion,
        is_stream=True,
        errors=(404, 502),
    )

    @router.post("/v1/chat/completions", **described)
    async def create_chat_completion(request: Request) -> Response:
        """Answer a chat; a model `rag/<collection>` answers from that collection."""
        body = await services.read(request, ChatCompletionRequest)
        request_id = request.state.request_id
        target, events = await services.chat(request, body)
        collection = target.retrieval.collection if target.retrieval else None
        header = {
            "id": derived_id("chatcmpl", request_id),
            "created": int(time.time()),
            "model": target.model,
        }
        if not body.stream:
            answer = await services.answer(request, events, body.num_choices)
            return json_response(_completion(header, answer, bool(body.logprobs), collection))
        encoder = ChatStream(
            header,
            body.num_choices,
            request_id=request_id,
            has_usage_chunk=body.has_usage_chunk,
            has_logprobs=bool(body.logprobs),
            collection=collection,
        )
        return await services.stream(request, events, encoder)

    return router


def _completion(
    header: dict[str, Any], answer: Answer, has_logprobs: bool, collection: str | None
) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": chat_logprobs(choice.logprobs) if has_logprobs else None,
            "finish_reason": choice.finish_reason,
        }
        for index, choice in enumerate(answer.choices)
    ]
    completion = {
        **answer.named(header),
        "object": "chat.completion",
        "choices": choices,
        "usage": usage_of(answer),
    }
    if collection is not None:
        completion["sources"] = sources_of(collection, answer.chunks or ())
    return completion
