"""`POST /v1/inference`: one answer, plain or grounded in a collection, whole or streamed."""

from typing import Any

from fastapi import APIRouter, Request, Response

from deployments.errors import RagError
from deployments.ingress.access import guarded
from deployments.ingress.errors import error_object
from deployments.ingress.generation import Answer
from deployments.ingress.ids import derived_id
from deployments.ingress.openai.logprobs import chat_logprobs
from deployments.ingress.openai.usage import usage_of
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.generated import Inference
from deployments.ingress.schemas.native import InferenceRequest
from deployments.ingress.services import Services, json_response, sources_of
from deployments.ingress.sse import block, dumps, quote
from deployments.types import AnswerEvent, Delta, Sources


def inference_router(services: Services) -> APIRouter:
    """Return the inference route."""
    router = guarded(tags=["Inference"])

    described = describe("infer", InferenceRequest, Inference, is_stream=True, errors=(404, 502))

    @router.post("/v1/inference", **described)
    async def infer(request: Request) -> Response:
        """Answer a prompt or a chat; with `retrieval`, from a collection and with its sources."""
        body = await services.read(request, InferenceRequest)
        request_id = request.state.request_id
        target, events = await services.chat(request, body)
        collection = target.retrieval.collection if target.retrieval else ""
        header = {"id": derived_id("inf", request_id), "model": target.model}
        has_logprobs = body.logprobs is not None
        if not body.stream:
            answer = await services.answer(request, events, body.num_choices)
            return json_response(_inference(header, answer, has_logprobs, collection))
        encoder = InferenceStream(header, body.num_choices, request_id, has_logprobs, collection)
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


class InferenceStream:
    """Encodes a streamed inference: `sources`, then `delta`s, then one `done` or `error`."""

    def __init__(
        self,
        header: dict[str, str],
        num_choices: int,
        request_id: str,
        has_logprobs: bool,
        collection: str,
    ) -> None:
        self._header = header
        self._request_id = request_id
        self._has_logprobs = has_logprobs
        self._collection = collection
        self.answer = Answer.of(num_choices)
        prefix = 'data: {"type":"delta","index":'
        self._heads = [f'{prefix}{i},"text":' for i in range(num_choices)]

    def event(self, event: AnswerEvent) -> bytes:
        """Return the blocks of an event, often none."""
        if isinstance(event, Delta):
            return self._delta(event) if event.text or event.logprobs else b""
        self.answer.count(event)
        if isinstance(event, Sources):
            return block({"type": "sources", "sources": sources_of(self._collection, event.chunks)})
        return b""

    def end(self) -> bytes:
        """Return the terminal event."""
        self.answer.check_whole()
        reasons = [choice.finish_reason for choice in self.answer.choices]
        done: dict[str, Any] = {
            "type": "done",
            **self.answer.named(self._header),
            "finish_reason": reasons[0],
        }
        if len(reasons) > 1:
            done["finish_reasons"] = reasons
        return block({**done, "usage": usage_of(self.answer)})

    def error(self, error: RagError) -> bytes:
        """Return the terminal event of a stream that failed."""
        return block({"type": "error", "error": error_object(error, self._request_id)})

    def _delta(self, delta: Delta) -> bytes:
        logprobs = ""
        if self._has_logprobs:
            logprobs = f',"logprobs":{dumps(chat_logprobs(delta.logprobs)["content"])}'
        text = f"{self._heads[delta.index]}{quote(delta.text)}{logprobs}}}\n\n"
        return text.encode("ascii")
