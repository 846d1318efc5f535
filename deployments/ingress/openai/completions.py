"""`POST /v1/completions`: prompts continued as they are."""

import time
from typing import Any

from fastapi import APIRouter, Request, Response

from deployments.ingress.access import guarded
from deployments.ingress.generation import Answer, Target, events_of, target_of
from deployments.ingress.ids import derived_id
from deployments.ingress.merging import merged
from deployments.ingress.metering import Ticket, estimated
from deployments.ingress.openai.completion_stream import CompletionStream
from deployments.ingress.openai.logprobs import legacy_logprobs
from deployments.ingress.openai.usage import usage_of
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.generated import Completion
from deployments.ingress.schemas.openai import CompletionRequest
from deployments.ingress.services import Services, json_response
from deployments.ingress.tenant_graph import TenantGraph
from deployments.stores.content import invalid
from deployments.types import GenerationRequest


def completions_router(services: Services) -> APIRouter:
    """Return the text completion route."""
    router = guarded(tags=["OpenAI"])
    described = describe(
        "createCompletion", CompletionRequest, Completion, is_stream=True, errors=(404, 502)
    )

    @router.post("/v1/completions", **described)
    async def create_completion(request: Request) -> Response:
        """Continue one prompt or several; choice `i * n + j` is the jth of prompt i."""
        body = await services.read(request, CompletionRequest)
        request_id = request.state.request_id
        graph = services.graph_of(request)
        target = _plain_target(graph, body)
        requests = _requests(body, request_id, target.generator)
        await _reserve(services, request, requests)
        timeout_s = services.args.request_timeout_s
        use = services.cache_use(request)
        sources = [events_of(graph, target, one, use, timeout_s) for one in requests]
        events = sources[0] if len(sources) == 1 else merged(sources, requests[0].n)
        num_choices = len(requests) * body.num_choices
        header = {
            "id": derived_id("cmpl", request_id),
            "object": "text_completion",
            "created": int(time.time()),
            "model": target.model,
        }
        has_logprobs = body.logprobs is not None
        if not body.stream:
            answer = await services.answer(request, events, num_choices)
            return json_response(_completion(header, answer, has_logprobs))
        encoder = CompletionStream(
            header,
            num_choices,
            request_id=request_id,
            has_usage_chunk=body.has_usage_chunk,
            has_logprobs=has_logprobs,
        )
        return await services.stream(request, events, encoder)

    return router


def _plain_target(graph: TenantGraph, body: CompletionRequest) -> Target:
    target = target_of(graph, body.model, None)
    if target.retrieval is not None:
        message = "models of collections answer chats: use /v1/chat/completions or /v1/inference"
        raise invalid(message, "model")
    return target


def _requests(body: CompletionRequest, request_id: str, model: str) -> list[GenerationRequest]:
    return [
        GenerationRequest(
            request_id=f"{request_id}-{position}",
            sampling=body.sampling(),
            prompt=prompt if isinstance(prompt, str) else None,
            prompt_token_ids=None if isinstance(prompt, str) else tuple(prompt),
            n=body.num_choices,
            is_streamed=bool(body.stream),
            model=model,
            fallbacks=body.fallback_models,
        )
        for position, prompt in enumerate(body.prompts())
    ]


async def _reserve(services: Services, request: Request, requests: list[GenerationRequest]) -> None:
    sampling, num_choices = requests[0].sampling, requests[0].n * len(requests)
    ticket: Ticket = request.state.ticket
    prompt = estimated(one.prompt for one in requests if one.prompt is not None)
    prompt += sum(len(one.prompt_token_ids or ()) for one in requests)
    completion = services.max_completion(sampling, num_choices)
    await ticket.reserve(prompt, completion, param="prompt")


def _completion(header: dict[str, Any], answer: Answer, has_logprobs: bool) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "text": choice.text,
            "logprobs": legacy_logprobs(choice.logprobs) if has_logprobs else None,
            "finish_reason": choice.finish_reason,
        }
        for index, choice in enumerate(answer.choices)
    ]
    return {**answer.named(header), "choices": choices, "usage": usage_of(answer)}
