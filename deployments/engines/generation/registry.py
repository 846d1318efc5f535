"""Generation engines by name. Only the chosen engine's module, and so its libraries, is loaded."""

from importlib import import_module
from importlib.util import find_spec
from typing import cast

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import GenerationEngine
from deployments.errors import EngineFailed

ENGINES = {
    "fake": "deployments.engines.generation.fake.FakeEngine",
    "deepspeed": "deployments.engines.generation.deepspeed.engine.DeepSpeedEngine",
    "transformers": "deployments.engines.generation.transformers.engine.TransformersEngine",
    "vllm": "deployments.engines.generation.vllm.engine.VllmEngine",
}

EXTRAS = ("deepspeed", "vllm")
"""Engines whose package is an extra of ours, of the same name."""


def is_installed(engine: str) -> bool:
    """Return whether an engine's libraries are here."""
    return engine not in EXTRAS or find_spec(engine) is not None


def create_engine(args: GeneratorArgs) -> GenerationEngine:
    """Build the engine that `args.engine` names; it loads nothing before `start`.

    Raises:
        EngineFailed: its libraries are not installed.
    """
    if not is_installed(args.engine):
        raise EngineFailed(f"the {args.engine} engine is not installed: ragserve[{args.engine}]")
    module, _, name = ENGINES[args.engine].rpartition(".")
    return cast(GenerationEngine, getattr(import_module(module), name)(args))
