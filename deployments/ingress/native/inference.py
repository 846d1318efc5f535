"""`POST /v1/inference`: one answer, plain or grounded in a collection, whole or streamed."""

from typing import Any

from fastapi import APIRouter, Request, Response

from deployments.ingress.access import guarded
from deployments.ingress.generation import Answer
from deployments.ingress.ids import derived_id
from deployments.ingress.native.inference_stream import InferenceStream
from deployments.ingress.openai.logprobs import chat_logprobs
from deployments.ingress.openai.usage import usage_of
from deployments.ingress.openapi import describe
from deployments.ingress.proto.media import is_wanted
from deployments.ingress.proto.messages import TextResponse
from deployments.ingress.proto.stream import ProtobufStream
from deployments.ingress.schemas.generated import Inference
from deployments.ingress.schemas.native import InferenceRequest
from deployments.ingress.services import Services, response_of, sources_of


def inference_router(services: Services) -> APIRouter:
    """Return the inference route."""
    router = guarded(tags=["Inference"])

    described = describe(
        "infer", InferenceRequest, Inference, is_stream=True, message="Text", errors=(404, 502)
    )

    @router.post("/v1/inference", **described)
    async def infer(request: Request) -> Response:
        """Answer a prompt or a chat; with `retrieval`, from a collection and with its sources.

        In Protobuf a stream is messages `TextDelta`, each after its length as a varint; an empty
        one only says that the server lives.
        """
        body = await services.read(request, InferenceRequest)
        request_id = request.state.request_id
        target, events = await services.chat(request, body)
        collection = target.retrieval.collection if target.retrieval else ""
        header = {"id": derived_id("inf", request_id), "model": target.model}
        has_logprobs = body.logprobs is not None
        if not body.stream:
            answer = await services.answer(request, events, body.num_choices)
            content = _inference(header, answer, has_logprobs, collection)
            return response_of(request, content, TextResponse)
        form = ProtobufStream if is_wanted(request.scope) else InferenceStream
        encoder = form(header, body.num_choices, request_id, has_logprobs, collection)
        return await services.stream(request, events, encoder)

    return router


def _inference(
    header: dict[str, str], answer: Answer, has_logprobs: bool, collection: str
) -> dict[str, Any]:
    outputs: list[dict[str, Any]] = []
    for index, choice in enumerate(answer.choices):
        output = {"index": index, "output": choice.text, "finish_reason": choice.finish_reason}
        if has_logprobs:
            output["logprobs"] = chat_logprobs(choice.logprobs)["content"]
        outputs.append(output)
    first = {name: value for name, value in outputs[0].items() if name != "index"}
    result = {**answer.named(header), **first, "usage": usage_of(answer)}
    result["sources"] = sources_of(collection, answer.chunks or ())
    if len(outputs) > 1:
        result["outputs"] = outputs
    return result
