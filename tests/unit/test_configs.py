"""Every configuration in the repository says what it means: Serve ignores what it does not know."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from cluster.serve_config import load_config
from graphs.args import RagArgs
from graphs.embedders import embedder_name

ROOT = Path(__file__).resolve().parents[2]
APPLICATIONS = [
    ROOT / "serve_config.yaml",
    ROOT / "configs/fake.yaml",
    ROOT / "configs/rerank.yaml",
    ROOT / "tests/chaos/slow_fake.yaml",
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
    assert names == {"Ingress", "Generator", "Embedder", "Retriever"} | optional


@pytest.mark.parametrize("name", ["serve_config.yaml", "configs/rerank.yaml"])
def test_default_application_scales_every_deployment(name: str) -> None:
    config = yaml.safe_load((ROOT / name).read_text())
    for deployment in config["applications"][0]["deployments"]:
        scaling = deployment["autoscaling_config"]
        assert 1 <= scaling["min_replicas"] < scaling["max_replicas"], deployment["name"]


@pytest.mark.parametrize(
    "args",
    [
        {"generater": {}},
        {"answer": {"top_k": 0}},
        {"generator": {"engine": "no-such"}},
        {"generator": {"num_threads": -1}},
        {"embedder": {"model": ""}},
        {"embedders": [{}]},
        {"embedders": [{"model": "a/b"}, {"model": "a:b"}]},
        {"embedders": [{"model": "a", "source": "x", "unknown": 1}]},
        {"reranker": {}},
        {"reranker": {"model": "m", "max_pair_tokens": 8}},
        {"ingress": {"unknown": 1}},
    ],
)
def test_mistakes_in_args_are_errors(args: dict) -> None:
    with pytest.raises(ValidationError):
        RagArgs.model_validate(args)
