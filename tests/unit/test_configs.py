"""Every configuration in the repository says what it means: Serve ignores what it does not know."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from cluster.serve_config import load_config
from deployments.config import GENERATING, RETRIEVING, TASKS
from graphs.args import RagArgs
from graphs.embedders import embedder_name

ROOT = Path(__file__).resolve().parents[2]
APPLICATIONS = [
    ROOT / "serve_config.yaml",
    ROOT / "configs/fake.yaml",
    ROOT / "configs/edge.yaml",
    ROOT / "configs/gpu.yaml",
    ROOT / "configs/rerank.yaml",
    ROOT / "tests/chaos/slow_fake.yaml",
    ROOT / "tests/integration/scaling.yaml",
    ROOT / "tests/integration/two_embedders.yaml",
]


@pytest.mark.parametrize("path", APPLICATIONS, ids=lambda path: path.name)
def test_configuration_is_valid(path: Path) -> None:
    config = load_config(path)
    (application,) = config["applications"]
    args = RagArgs.model_validate(application["args"])
    for deployment in application["deployments"]:
        has_scale = {"num_replicas", "autoscaling_config"} & deployment.keys()
        assert has_scale, deployment["name"]
        assert deployment["max_queued_requests"] > 0, "an unbounded queue"
        assert deployment["max_surge_percent"] == 100, "a rollout of one replica would be an outage"
    names = {deployment["name"] for deployment in application["deployments"]}
    optional = {"Reranker"} if args.reranker else set()
    optional |= {embedder_name(one.model) for one in args.embedders}
    expected = {"Ingress"}
    expected |= {"Worker"} if args.ingress.has_any(TASKS) else set()
    expected |= {"Generator"} if args.ingress.has_any(GENERATING) else set()
    if args.ingress.has_any(RETRIEVING):
        expected |= {"Embedder", "Retriever"} | optional
    assert names == expected


REAL = ["serve_config.yaml", "configs/rerank.yaml", "configs/gpu.yaml"]
"""The configurations that run real models."""

TOKEN_SCALING = "cluster.autoscaling:TokenScaling"


def deployments_of(name: str) -> dict[str, dict]:
    application = yaml.safe_load((ROOT / name).read_text())["applications"][0]
    return {deployment["name"]: deployment for deployment in application["deployments"]}


@pytest.mark.parametrize("name", REAL)
def test_default_application_scales_every_deployment(name: str) -> None:
    for deployment in deployments_of(name).values():
        scaling = deployment["autoscaling_config"]
        assert 1 <= scaling["min_replicas"] < scaling["max_replicas"], deployment["name"]


@pytest.mark.parametrize("name", REAL)
def test_models_scale_on_tokens_and_generation_on_its_cache_too(name: str) -> None:
    deployments = deployments_of(name)
    for model in {"Generator", "Embedder", "Reranker"} & deployments.keys():
        policy = deployments[model]["autoscaling_config"]["policy"]
        assert policy["policy_function"] == TOKEN_SCALING
        has_cache = "kv_cache_usage" in policy["policy_kwargs"]
        assert has_cache == (model == "Generator")


@pytest.mark.parametrize("name", REAL)
def test_scaling_down_cuts_no_answer_short(name: str) -> None:
    config = yaml.safe_load((ROOT / name).read_text())
    longest = RagArgs.model_validate(config["applications"][0]["args"]).ingress.request_timeout_s
    assert deployments_of(name)["Generator"]["graceful_shutdown_timeout_s"] > longest


def test_models_lie_on_gpus_where_there_are_any() -> None:
    deployments = deployments_of("configs/gpu.yaml")
    asked = {
        name: deployment["ray_actor_options"].get("num_gpus", 0)
        for name, deployment in deployments.items()
    }
    assert asked == {
        "Ingress": 0,
        "Worker": 0,
        "Generator": 1,
        "Embedder": 0.25,
        "Retriever": 0,
        "Reranker": 0.25,
    }
    args = yaml.safe_load((ROOT / "configs/gpu.yaml").read_text())["applications"][0]["args"]
    for model in ("generator", "embedder", "reranker"):
        assert args[model]["device"] == "cuda"


@pytest.mark.parametrize(
    "args",
    [
        {"generater": {}},
        {"answer": {"top_k": 0}},
        {"generator": {"engine": "no-such"}},
        {"generator": {"num_threads": -1}},
        {"generator": {"engine": "transformers", "max_adapters": 1}},
        {"generator": {"engine": "vllm", "max_adapters": 1, "max_adapter_rank": 12}},
        {"generator": {"engine": "vllm", "max_adapter_rank": 32}},
        {"embedder": {"model": ""}},
        {"embedders": [{}]},
        {"embedders": [{"model": "a/b"}, {"model": "a:b"}]},
        {"embedders": [{"model": "a", "source": "x", "unknown": 1}]},
        {"reranker": {}},
        {"reranker": {"model": "m", "max_pair_tokens": 8}},
        {"ingress": {"unknown": 1}},
        {"ingress": {"interfaces": []}},
        {"ingress": {"interfaces": ["everything"]}},
    ],
)
def test_mistakes_in_args_are_errors(args: dict) -> None:
    with pytest.raises(ValidationError):
        RagArgs.model_validate(args)
