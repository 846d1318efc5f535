from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import OperatorError
from cluster.serve_config import load_config, on_port, problems_of

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = [
    path
    for path in [*ROOT.glob("*.yaml"), *ROOT.glob("configs/**/*.yaml")]
    if "applications" in (yaml.safe_load(path.read_text()) or {})
]


def config(**deployment: Any) -> dict[str, Any]:
    return {
        "applications": [
            {
                "name": "a",
                "import_path": "m:build",
                "deployments": [{"name": "D", **deployment}],
            }
        ]
    }


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_serve_config_accepts_every_shipped_file(path: Path) -> None:
    assert problems_of(yaml.safe_load(path.read_text())) == []


def test_serve_config_finds_the_shipped_files() -> None:
    assert ROOT / "serve_config.yaml" in SHIPPED


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ({"aplications": []}, "aplications: unknown key"),
        ({**config(), "http_options": {"prot": 1}}, "http_options.prot: unknown key"),
        (config(max_ongoing_request=5), "applications[0].deployments[0].max_ongoing_request: "),
        (
            config(autoscaling_config={"min_replica": 1}),
            "applications[0].deployments[0].autoscaling_config.min_replica: ",
        ),
        (
            config(ray_actor_options={"num_cpu": 1}),
            "applications[0].deployments[0].ray_actor_options.num_cpu: ",
        ),
        (
            config(request_router_config={"request_router_clas": "x"}),
            "applications[0].deployments[0].request_router_config.request_router_clas: ",
        ),
        (config(logging_config={"log_levle": "INFO"}), "logging_config.log_levle: "),
        (config(max_ongoing_requests="many"), "applications.0.deployments.0.max_ongoing_requests"),
        ([], "no mapping"),
    ],
)
def test_serve_config_names_the_place_of_a_problem(broken: object, problem: str) -> None:
    assert any(problem in found for found in problems_of(broken))


def scaling(function: str, **kwargs: Any) -> dict[str, Any]:
    policy = {"policy_function": function, "policy_kwargs": kwargs}
    return config(autoscaling_config={"max_replicas": 2, "policy": policy})


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (config(autoscaling_config={"min_replicas": 2, "max_replicas": 1}), "must be greater"),
        (config(autoscaling_config={"upscale_delay_s": -1}), "upscale_delay_s: "),
        (scaling("cluster.autoscaling:NoSuch", tokens_waiting=1), "NoSuch"),
        (scaling("cluster.nowhere:Policy", tokens_waiting=1), "cluster.nowhere"),
        (scaling("cluster.autoscaling:TokenScaling"), "tokens_waiting"),
        (scaling("cluster.autoscaling:TokenScaling", tokens_waiting=0), "above 0"),
        (scaling("cluster.autoscaling:TokenScaling", tokens_waiting="many"), "policy: "),
        (scaling("cluster.autoscaling:TokenScaling", tokens=1), "tokens"),
    ],
)
def test_serve_config_finds_a_bad_scaling_policy(broken: dict, problem: str) -> None:
    [found] = problems_of(broken)
    assert found.startswith("applications[0].deployments[0].autoscaling_config.")
    assert problem in found


def test_serve_config_takes_a_good_scaling_policy() -> None:
    good = scaling("cluster.autoscaling:TokenScaling", tokens_waiting=1, kv_cache_usage=1)
    good["applications"][0]["deployments"][0]["autoscaling_config"] |= {"metrics_interval_s": 1}
    assert problems_of(good) == []


def test_serve_config_leaves_free_mappings_alone() -> None:
    free = config(user_config={"any": {"thing": 1}}, ray_actor_options={"resources": {"x": 1}})
    free["applications"][0]["args"] = {"what": {"ever": True}}
    assert problems_of(free) == []


@pytest.mark.parametrize("text", ["applications: [", "- 1", "applications: []\nmore: 1\n"])
def test_load_config_refuses_a_bad_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(OperatorError, match=r"bad\.yaml"):
        load_config(path)


def test_load_config_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot read"):
        load_config(tmp_path / "none.yaml")


def test_on_port_keeps_serve_behind_the_edge() -> None:
    given = {**config(), "http_options": {"host": "0.0.0.0", "port": 1, "keep_alive_timeout_s": 5}}
    options = on_port(given, 23456)["http_options"]
    assert options == {"host": "127.0.0.1", "port": 23456, "keep_alive_timeout_s": 5}
    assert given["http_options"]["port"] == 1


def test_on_port_turns_access_logs_off_unless_asked_for() -> None:
    assert on_port(config(), 1)["logging_config"]["enable_access_log"] is False
    asked = {**config(), "logging_config": {"enable_access_log": True}}
    assert on_port(asked, 1)["logging_config"]["enable_access_log"] is True
