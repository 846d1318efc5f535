"""Generation engines by name. Only the chosen engine's module, and so its libraries, is loaded."""

from importlib import import_module
from typing import cast

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import GenerationEngine

ENGINES = {
    "fake": "deployments.engines.generation.fake.FakeEngine",
    "deepspeed": "deployments.engines.generation.deepspeed.engine.DeepSpeedEngine",
    "transformers": "deployments.engines.generation.transformers.engine.TransformersEngine",
}


def create_engine(args: GeneratorArgs) -> GenerationEngine:
    """Build the engine that `args.engine` names; it loads nothing before `start`."""
    module, _, name = ENGINES[args.engine].rpartition(".")
    return cast(GenerationEngine, getattr(import_module(module), name)(args))
