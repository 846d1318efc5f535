"""Says where the replicas of ``configs/gpu.yaml`` lie in a cluster whose GPUs exist on paper only.

    python -m tests.integration.placement

One machine without GPUs and three with two each are four Ray nodes of this host. The engines are
fake (there is no GPU to compute on), and a few replicas of each model are wanted at once; nothing
else of the file changes. Prints a JSON object for each of the cases.
"""

import json
import time
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray._private.state import available_resources_per_node
from ray.cluster_utils import Cluster
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from cluster.serve_config import load_config

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 120
NUM_GPU_NODES = 3
GPUS_PER_NODE = 2
OBJECT_STORE_BYTES = 80_000_000
FAKE = {"engine": "fake", "source": "", "device": "cpu"}

WANTED = {
    "whole": {"Generator": 2, "Embedder": 2, "Reranker": 2},
    "several": {"Generator": 1, "Embedder": 1, "Reranker": 1},
}
"""Replicas of each model in each case."""


def config(case: str) -> dict[str, Any]:
    """Return the file with fake engines; in the case `several` a generator takes two GPUs."""
    found = load_config(ROOT / "configs/gpu.yaml")
    application = found["applications"][0]
    args = application["args"]
    args["generator"] |= FAKE | {"precision": "auto"}
    args["embedder"] |= FAKE
    args["reranker"] |= FAKE
    for deployment in application["deployments"]:
        scaling = deployment["autoscaling_config"]
        scaling["initial_replicas"] = WANTED[case].get(deployment["name"], 1)
        if case == "several" and deployment["name"] == "Generator":
            deployment["ray_actor_options"]["num_gpus"] = 2
    return found | {"proxy_location": "Disabled"}


def placed(case: str, gpu_nodes: dict[str, str]) -> dict[str, Any]:
    """Deploy a case; return each replica's node, and the GPUs that each node has given away."""
    client = _get_global_client()
    client.deploy_apps(ServeDeploySchema.model_validate(config(case)))
    wanted = WANTED[case] | {"Ingress": 1, "Retriever": 1, "Worker": 1}
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        [application] = client.get_serve_details()["applications"].values()
        nodes = {
            name: [
                gpu_nodes.get(one["node_id"], "none")
                for one in deployment["replicas"]
                if one["state"] == "RUNNING"
            ]
            for name, deployment in application["deployments"].items()
        }
        is_running = application["status"] == "RUNNING"
        if is_running and {name: len(of) for name, of in nodes.items()} == wanted:
            break
        if time.monotonic() > deadline:
            raise TimeoutError(f"{application['status']}: {nodes}")
        time.sleep(0.5)
    free = available_resources_per_node()
    used = {name: GPUS_PER_NODE - free[node].get("GPU", 0) for node, name in gpu_nodes.items()}
    return {"case": case, "replicas": nodes, "gpus_used": used}


def main() -> None:
    options = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    head = {"num_cpus": 4, "num_gpus": 0, **options}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        added = [
            cluster.add_node(num_cpus=8, num_gpus=GPUS_PER_NODE, **options)
            for _ in range(NUM_GPU_NODES)
        ]
        gpu_nodes = {node.node_id: f"gpu-{index}" for index, node in enumerate(added)}
        ray.init(address=cluster.address, log_to_driver=False)
        serve.start(proxy_location="Disabled")
        for case in WANTED:
            print(json.dumps(placed(case, gpu_nodes)), flush=True)
            serve.delete("ragserve")
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
