"""A Serve configuration file, read strictly: Serve itself ignores every key it does not know."""

import typing
import warnings
from pathlib import Path
from types import UnionType
from typing import Any, Union

import yaml
from pydantic import BaseModel, ValidationError

from cluster.errors import OperatorError
from cluster.ports import LOOPBACK


def load_config(path: Path) -> dict[str, Any]:
    """Return a checked configuration.

    Raises:
        OperatorError: the file is missing, not YAML, or says something Serve does not know.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise OperatorError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    problems = problems_of(config)
    if problems:
        raise OperatorError(f"{path}: {'; '.join(problems)}")
    return typing.cast("dict[str, Any]", config)


def problems_of(config: object) -> list[str]:
    """Return everything wrong with a parsed configuration, each with its place; [] if nothing."""
    from ray.serve.schema import ServeDeploySchema  # seconds that other commands need not wait

    if not isinstance(config, dict):
        return ["the file holds no mapping"]
    unknown = list(_unknown_keys(config, ServeDeploySchema, ""))
    if unknown:
        return unknown
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Serve, about its own field names
        problems = list(_scaling_problems(config))
        if problems:
            return problems
        try:
            ServeDeploySchema.model_validate(config)
        except ValidationError as error:
            return [_place(e["loc"]) + e["msg"] for e in error.errors()]
    return []


def _scaling_problems(config: dict[str, Any]) -> typing.Iterator[str]:
    """Make every scaling policy as Serve will: there, a bad one ends the control loop."""
    from ray.serve.config import AutoscalingConfig

    for place, given in _scalings(config):
        try:
            policy = AutoscalingConfig(**given).policy
            made = policy.get_policy()
            if isinstance(made, type):
                made(**policy.policy_kwargs)
        except ValidationError as error:
            yield from (f"{place}.{_place(e['loc'])}{e['msg']}" for e in error.errors())
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            yield f"{place}.policy: {error}"


def _scalings(config: dict[str, Any]) -> typing.Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and content of every `autoscaling_config`; other mistakes are found later."""
    for number, application in enumerate(_mappings(config.get("applications"))):
        for index, deployment in enumerate(_mappings(application.get("deployments"))):
            given = deployment.get("autoscaling_config")
            if isinstance(given, dict):
                yield f"applications[{number}].deployments[{index}].autoscaling_config", given


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) + ": " if location else ""


def _unknown_keys(value: Any, model: type[BaseModel], place: str) -> typing.Iterator[str]:
    for key, inner in value.items():
        field = model.model_fields.get(key)
        if field is None:
            yield f"{place}{key}: unknown key"
            continue
        nested = _model_of(key, field.annotation)
        if nested is None:
            continue
        items = inner if isinstance(inner, list) else [inner]
        for number, item in enumerate(items):
            if isinstance(item, dict):
                index = f"[{number}]" if isinstance(inner, list) else ""
                yield from _unknown_keys(item, nested, f"{place}{key}{index}.")


def _model_of(key: str, annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field's mapping (or each of its list's mappings) has to follow."""
    from ray.serve.config import AutoscalingConfig

    if key == "autoscaling_config":
        return AutoscalingConfig
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (Union, UnionType, list):
        for argument in typing.get_args(annotation):
            found = _model_of("", argument)
            if found is not None:
                return found
    return None


def on_port(config: dict[str, Any], port: int) -> dict[str, Any]:
    """Return the configuration as the supervisor deploys it.

    Serve's proxy listens on loopback, where only the edge reaches it, whatever `http_options`
    says for a plain `serve run`; access logs are off unless the file asks for them.
    """
    options = {**config.get("http_options", {}), "host": LOOPBACK, "port": port}
    logging = {"enable_access_log": False, **(config.get("logging_config") or {})}
    return {**config, "http_options": options, "logging_config": logging}
