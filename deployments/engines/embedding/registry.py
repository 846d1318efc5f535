"""Which embedding engines exist; one is imported when built, so torch loads only where needed."""

from importlib import import_module

from deployments.config import EmbedderArgs
from deployments.engines.embedding.base import EmbeddingEngine

ENGINES = {
    "transformers": "deployments.engines.embedding.transformers:TransformersEmbedder",
    "fake": "deployments.engines.embedding.fake:FakeEmbedder",
}


def create(args: EmbedderArgs) -> EmbeddingEngine:
    """Return the engine that `args` name, not yet started."""
    module, _, name = ENGINES[args.engine].partition(":")
    engine: EmbeddingEngine = getattr(import_module(module), name)(args)
    return engine
