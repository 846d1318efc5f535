"""Typed configuration: `args` of each deployment, and the settings a host gives by environment.

*What* runs stands here and comes from the YAML's `args`; *how much* runs is Serve's `deployments:`
section. Secrets and per-host addresses come from the environment (`Settings`) and nowhere else.
"""

from deployments.config.base import (
    Args,
)
from deployments.config.ingress import (
    AddressArgs,
    AuditArgs,
    CacheArgs,
    IngressArgs,
    LimitArgs,
    RpcArgs,
)
from deployments.config.interfaces import (
    GENERATING,
    RETRIEVING,
    TASKS,
    WORKED,
    Interface,
)
from deployments.config.models import (
    ADAPTER_RANK,
    MIN_PAIR_TOKENS,
    EmbedderArgs,
    GeneratorArgs,
    ModelsArgs,
    RerankerArgs,
    RetrieverArgs,
    TuningArgs,
)
from deployments.config.settings import (
    Settings,
)
from deployments.config.tasks import (
    BatchesArgs,
    TasksArgs,
    WebhookArgs,
)

__all__ = [
    "ADAPTER_RANK",
    "GENERATING",
    "MIN_PAIR_TOKENS",
    "RETRIEVING",
    "TASKS",
    "WORKED",
    "AddressArgs",
    "Args",
    "AuditArgs",
    "BatchesArgs",
    "CacheArgs",
    "EmbedderArgs",
    "GeneratorArgs",
    "IngressArgs",
    "Interface",
    "LimitArgs",
    "ModelsArgs",
    "RerankerArgs",
    "RetrieverArgs",
    "RpcArgs",
    "Settings",
    "TasksArgs",
    "TuningArgs",
    "WebhookArgs",
]
