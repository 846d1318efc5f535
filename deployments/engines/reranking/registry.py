"""Which reranking engines exist; one is imported when built, so torch loads only where needed."""

from importlib import import_module

from deployments.config import RerankerArgs
from deployments.engines.reranking.base import RerankingEngine

ENGINES = {
    "transformers": "deployments.engines.reranking.transformers:TransformersReranker",
    "fake": "deployments.engines.reranking.fake:FakeReranker",
}


def create(args: RerankerArgs) -> RerankingEngine:
    """Return the engine that `args` name, not yet started."""
    module, _, name = ENGINES[args.engine].partition(":")
    engine: RerankingEngine = getattr(import_module(module), name)(args)
    return engine
