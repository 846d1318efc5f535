"""The interfaces of the HTTP surface, each in a module that is loaded only where it is wanted."""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final, get_args

from deployments.config import Interface

if TYPE_CHECKING:
    from fastapi import APIRouter

    from deployments.ingress.services import Services

RouterOf = Callable[["Services"], "APIRouter"]

ROUTERS: Final[Mapping[Interface, str]] = {
    "inference": "native.inference:inference_router",
    "clean": "native.clean:clean_router",
    "data": "native.data:data_router",
    "collections": "native.collections:collections_router",
    "documents": "native.stored:documents_router",
    "transfer": "native.transfer:transfer_router",
    "erasures": "native.erasures:erasures_router",
    "chat": "openai.chat:chat_router",
    "completions": "openai.completions:completions_router",
    "embeddings": "openai.embeddings:embeddings_router",
    "rerank": "rerank.routes:rerank_router",
    "dify": "dify.routes:dify_router",
    "models": "native.models:model_states_router",
    "finetune": "native.finetune:finetune_router",
    "keys": "native.keys:keys_router",
    "audit": "native.audit:audit_router",
    "totp": "native.second_factors:second_factors_router",
    "feedback": "native.feedback:feedback_router",
    "files": "openai.files:files_router",
    "tasks": "native.tasks:tasks_router",
}
ALWAYS: Final = ("openai.models:models_router", "native.operations:operations_router")
"""What every client and every operator asks for: which models there are, and how it is."""


def router_factories(wanted: Iterable[Interface] | None) -> list[RouterOf]:
    """Return what makes the routers of the interfaces that are wanted; None: of all."""
    names = get_args(Interface) if wanted is None else tuple(wanted)
    return [_loaded(ROUTERS[name]) for name in names] + [_loaded(one) for one in ALWAYS]


def _loaded(place: str) -> RouterOf:
    module, _, name = place.partition(":")
    factory: RouterOf = getattr(import_module(f"deployments.ingress.{module}"), name)
    return factory
