"""A model that was loaded at run time, and the handles to its replicas."""

from dataclasses import dataclass
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.types import ModelState
from graphs.model_app import handle_of

Handle = DeploymentHandle[Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded model and the handles to its replicas, made once."""

    id: str
    handle: Handle
    deliver: Handle
    complete: Handle
    embed: Handle
    rerank: Handle

    @classmethod
    def of(cls, state: ModelState) -> "Loaded":
        """Return the model with its handles, which ask nothing before they are used."""
        handle = handle_of(state)
        methods = ("deliver", "complete", "embed", "rerank")
        return cls(state.id, handle, *(handle.options(method_name=one) for one in methods))
