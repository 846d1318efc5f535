"""How a question becomes a search, and the passages that were found a prompt. It calls nobody."""

import dataclasses

from deployments.errors import InvalidRequest
from deployments.types import (
    AnswerEvent,
    Delta,
    Finished,
    GenerationRequest,
    Grounding,
    PromptAccepted,
    Retrieval,
    ScoredChunk,
    SearchRequest,
    Sources,
)
from graphs.args import AnswerArgs
from graphs.relevance import relevant


class Answers:
    """What the configuration says of answers from a collection, where a request does not."""

    def __init__(self, args: AnswerArgs) -> None:
        self._args = args

    def search(self, request: GenerationRequest, retrieval: Retrieval) -> SearchRequest:
        """Return the search for a question's passages; raises InvalidRequest without a question."""
        defaults = self._args
        return SearchRequest(
            collection=retrieval.collection,
            query=_question(request),
            top_k=defaults.top_k if retrieval.top_k is None else retrieval.top_k,
            mode=defaults.mode,
            min_score=defaults.min_score if retrieval.min_score is None else retrieval.min_score,
            filter=retrieval.filter,
        )

    def relevant(self, request: GenerationRequest, chunks: list[ScoredChunk]) -> list[ScoredChunk]:
        """Return those of the chunks, best first, that are worth showing to a model."""
        return relevant(
            chunks,
            _question(request),
            strong_score=self._args.strong_score,
            relative_score=self._args.relative_score,
        )

    def grounded(self, request: GenerationRequest, chunks: list[ScoredChunk]) -> GenerationRequest:
        """Return the request with the passages to answer from."""
        grounding = Grounding(self._args.template, tuple(chunk.text for chunk in chunks))
        sampling = request.sampling
        if sampling.temperature is None:
            sampling = dataclasses.replace(sampling, temperature=self._args.temperature)
        return dataclasses.replace(request, grounding=grounding, sampling=sampling)

    def unknown(self, request: GenerationRequest) -> list[AnswerEvent]:
        """Return the events of an answer that says that nothing was found."""
        events: list[AnswerEvent] = [PromptAccepted(prompt_tokens=0), Sources(())]
        for index in range(request.n):
            events += [Delta(self._args.unknown, index), Finished("stop", 0, index)]
        return events


def _question(request: GenerationRequest) -> str:
    if request.prompt is not None:
        return request.prompt
    questions = [message.content for message in request.messages if message.role == "user"]
    if not questions or not questions[-1].strip():
        raise InvalidRequest("an answer from a collection needs a question in a user message")
    return questions[-1]
