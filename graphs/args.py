"""What an application runs: `args` of the YAML, checked as a whole."""

from pydantic import Field, model_validator

from deployments.config import (
    Args,
    EmbedderArgs,
    GeneratorArgs,
    IngressArgs,
    ModelsArgs,
    RerankerArgs,
    RetrieverArgs,
)
from deployments.types import SearchMode
from graphs.embedders import embedder_name
from graphs.prompt import TEMPLATE, UNKNOWN


class AnswerArgs(Args):
    """How an answer is grounded when the request does not say."""

    top_k: int = Field(default=3, ge=1, le=50, description="passages in the prompt")
    mode: SearchMode = "hybrid"
    min_score: float = Field(default=0.2, ge=-1, le=1, description="least cosine of a passage")
    strong_score: float = Field(
        default=0.35, ge=-1, le=1, description="cosine below which a passage must share a word"
    )
    relative_score: float = Field(
        default=0.7, ge=0, le=1, description="least share of the best passage's cosine"
    )
    temperature: float = Field(default=0.0, ge=0, le=2, description="where none is asked for")
    template: str = TEMPLATE
    unknown: str = UNKNOWN


class RagArgs(Args):
    """What the application runs; every part has defaults that work on a machine without a GPU.

    Each of `embedders` is a further embedding model, which collections can be created with: a
    deployment of its own, `Embedder-<model>`, with `-` for what a name cannot hold.
    """

    generator: GeneratorArgs = GeneratorArgs()
    embedder: EmbedderArgs = EmbedderArgs()
    embedders: tuple[EmbedderArgs, ...] = ()
    retriever: RetrieverArgs = RetrieverArgs()
    reranker: RerankerArgs | None = Field(default=None, description="null: late fusion reranks")
    ingress: IngressArgs = IngressArgs()
    answer: AnswerArgs = AnswerArgs()
    models: ModelsArgs = ModelsArgs()

    @model_validator(mode="after")
    def _has_distinct_embedders(self) -> "RagArgs":
        names = [embedder_name(one.model) for one in (self.embedder, *self.embedders)]
        if len(set(names)) < len(names):
            raise ValueError("two embedders have the same model, or one name of a deployment")
        return self
