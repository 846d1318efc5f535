"""What a load may ask for, what it becomes, and whether that fits."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest

from deployments.config import GeneratorArgs, ModelsArgs
from deployments.errors import InsufficientResources, InvalidRequest, UnreadableModel
from deployments.gangs import RayRanks
from deployments.types import LoadOrder, ModelState
from graphs.fit import NodeRoom, check_fit, rooms
from graphs.model_app import PREFIX, app_name, args_of, build_model, deployment_options
from graphs.serve_apps import error_of
from graphs.specs import check_files, spec_of
from tests.unit.engines.inspection.material import BERT, LLAMA, folder, gguf
from tests.unit.graphs.registry import spec

GIB = 1 << 30


def order(**changes: Any) -> LoadOrder:
    return LoadOrder(**({"name": "m", "version": "", "engine": "fake"} | changes))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder(tmp_path / "llama", LLAMA)
    folder(tmp_path / "bert", BERT)
    folder(tmp_path / "judge", {"architectures": ["BertForSequenceClassification"]})
    gguf(tmp_path / "m.gguf")
    return tmp_path


def test_order_without_wishes_gets_what_is_here() -> None:
    made = spec_of(order(), 0, ModelsArgs())
    assert (made.id, made.kind, made.device, made.precision) == ("m@1", "generation", "cpu", "auto")
    assert (made.num_bytes, made.memory_bytes, made.location) == (0, 0, "")


@pytest.mark.parametrize(
    ("name", "kind", "location"),
    [
        ("llama", "generation", "llama"),
        ("bert", "embedding", "bert"),
        ("judge", "reranking", "judge"),
        ("m.gguf", "generation", "m.gguf"),
    ],
)
def test_files_say_kind_size_and_need(files: Path, name: str, kind: str, location: str) -> None:
    args = ModelsArgs(roots=(str(files),))
    made = spec_of(order(source=str(files / name), engine=None), 0, args)
    assert (made.kind, made.engine) == (kind, "transformers")
    assert made.location == str(files / location)
    assert made.num_bytes > 0
    assert made.memory_bytes > 400 << 20


def test_more_cache_and_wider_numbers_need_more(files: Path) -> None:
    args = ModelsArgs(roots=(str(files),))

    def memory(**changes: Any) -> int:
        wanted = order(source=str(files / "llama"), engine=None, **changes)
        return spec_of(wanted, 0, args).memory_bytes

    assert memory(precision="fp32") > memory(precision="bf16")
    assert memory(options={"kv_cache_tokens": 2**20}) - memory(options={"kv_cache_tokens": 2**19})


@pytest.mark.parametrize(
    ("changes", "param", "names"),
    [
        (
            {"engine": "tensorrt", "source": "{files}/llama"},
            "engine",
            "fake, deepspeed, transformers",
        ),
        ({"kind": "embedding", "engine": "deepspeed", "source": "{files}/bert"}, "engine", "fake"),
        ({"tensor_parallel": 3}, "tensor_parallel", "must be 1"),
        ({"device": "cuda"}, "device", "there is: cpu"),
        ({"device": "cuda:1"}, "device", "there is: cpu"),
        ({"device": "cuda:99;rm"}, "device", "auto"),
        ({"precision": "int4"}, "precision", "auto, fp32, bf16, fp16"),
        ({"precision": "int8"}, "precision", "bf16"),
        ({"kind": "reranking", "precision": "int8"}, "precision", "fp32, bf16, fp16"),
        ({"source": "/x"}, "source", "no weights"),
        ({"options": {"nothing": 1}}, "options", "kv_cache_tokens"),
        ({"options": {"source": "/etc"}}, "options", "kv_cache_tokens"),
        ({"options": {"tensor_parallel": 2}}, "options", "kv_cache_tokens"),
        ({"options": {"context_length": -1}}, "options.context_length", "greater"),
        ({"options": {"context_length": "much"}}, "options.context_length", "integer"),
        ({"kind": "generation", "engine": None, "source": "{files}/bert"}, "kind", "embedding"),
    ],
)
def test_what_is_not_here_is_refused_with_what_is(
    files: Path, changes: dict[str, Any], param: str, names: str
) -> None:
    if "source" in changes:
        changes = changes | {"source": changes["source"].format(files=files)}
    with pytest.raises(InvalidRequest) as refused:
        spec_of(order(**changes), 0, ModelsArgs(roots=(str(files),)))
    assert refused.value.param == param
    assert names in refused.value.message


def test_damaged_file_is_refused_before_it_is_loaded(files: Path) -> None:
    path = files / "llama/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnreadableModel):
        spec_of(order(source=str(path.parent), engine=None), 0, ModelsArgs(roots=(str(files),)))


def test_devices_are_those_that_ray_has() -> None:
    assert spec_of(order(), 2, ModelsArgs()).device == "cuda"
    assert spec_of(order(device="cuda:1"), 2, ModelsArgs()).num_gpus == 1
    with pytest.raises(InvalidRequest, match="cuda:0 to cuda:1, cpu"):
        spec_of(order(device="cuda:2"), 2, ModelsArgs())
    with pytest.raises(InvalidRequest, match="must be `cuda`") as refused:
        spec_of(order(device="cuda:1", engine="deepspeed", tensor_parallel=2), 2, ModelsArgs())
    assert refused.value.param == "device"


def test_replicas_see_their_gpus_as_the_first_ones() -> None:
    gpu = spec(device="cuda:1", precision="bf16")
    args = args_of(gpu)
    assert isinstance(args, GeneratorArgs)
    assert (args.device, args.model) == ("cuda", "m@1")
    actor = deployment_options(gpu, ModelsArgs())["ray_actor_options"]
    assert actor["num_gpus"] == 1
    assert actor["runtime_env"]["env_vars"]["CUDA_VISIBLE_DEVICES"] == "1"


def test_range_of_replicas_scales_and_a_number_does_not() -> None:
    fixed = deployment_options(spec(min_replicas=2, max_replicas=2), ModelsArgs())
    assert (fixed["num_replicas"], "autoscaling_config" in fixed) == (2, False)
    scaled = deployment_options(spec(min_replicas=0, max_replicas=2), ModelsArgs())
    assert scaled["autoscaling_config"]["initial_replicas"] == 1
    assert "num_replicas" not in scaled


@pytest.mark.parametrize(
    ("needs", "nodes", "free_bytes", "fits"),
    [
        ({}, [NodeRoom(1, 0, 0)], 0, True),
        ({}, [NodeRoom(0.4, 0, 0)], 0, False),
        ({}, [], GIB, False),
        ({"memory_bytes": GIB}, [NodeRoom(4, 0, 2 * GIB)], 2 * GIB, True),
        ({"memory_bytes": GIB}, [NodeRoom(4, 0, GIB / 2)], 2 * GIB, False),
        ({"memory_bytes": GIB}, [NodeRoom(4, 0, 2 * GIB)], GIB // 2, False),
        ({"memory_bytes": GIB, "min_replicas": 2}, [NodeRoom(4, 0, GIB)] * 2, 0, True),
        ({"memory_bytes": GIB, "min_replicas": 3}, [NodeRoom(4, 0, GIB)] * 2, 0, False),
        ({"device": "cuda"}, [NodeRoom(4, 0, GIB)], GIB, False),
        ({"device": "cuda"}, [NodeRoom(4, 1, GIB)], GIB, True),
        ({"device": "cuda", "tensor_parallel": 2}, [NodeRoom(4, 1, GIB)] * 2, GIB, False),
        ({"min_replicas": 5}, [NodeRoom(2, 0, 0)], 0, False),
    ],
)
def test_fit_is_what_the_nodes_have_free(
    needs: dict[str, Any], nodes: list[NodeRoom], free_bytes: int, fits: bool
) -> None:
    wanted = spec(**({"max_replicas": 9} | needs))
    if fits:
        check_fit(wanted, ModelsArgs(), nodes, free_bytes)
        return
    with pytest.raises(InsufficientResources, match="needs .* free"):
        check_fit(wanted, ModelsArgs(), nodes, free_bytes)


def test_rooms_are_of_living_nodes() -> None:
    total = {"a": {"CPU": 4.0}, "b": {"CPU": 2.0}}
    free = {"a": {"CPU": 1.5, "memory": 7.0}, "dead": {"CPU": 9.0}}
    assert rooms(total, free) == [NodeRoom(1.5, 0.0, 7.0), NodeRoom(0.0, 0.0, 0.0)]


def test_names_of_applications_differ_where_ids_do() -> None:
    ids = [("a-b", "1"), ("a", "b-1"), ("a.b", "1"), ("a_b", "1"), ("a", "1")]
    names = {
        app_name(ModelState(spec=spec(*one), phase="loading", attempt=attempt, changed_at=0))
        for one in ids
        for attempt in (1, 2)
    }
    assert len(names) == 10
    assert all(name.startswith(PREFIX) and name.isascii() for name in names)


def test_traceback_shows_only_an_error_of_ours() -> None:
    text = (
        "The deployment failed to start 3 times in a row.\nTraceback (most recent call last):\n"
        '  File "/secret/path.py", line 1\n'
        "deployments.errors.EngineFailed: the tokenizer is missing\n"
    )
    assert error_of(text) == "the tokenizer is missing"
    assert "/secret" not in error_of('File "/secret/x"\nOSError: /secret/y')
    assert error_of(" ") == ""


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_ranks_reach_the_engine_and_are_asked_of_ray_once(device: str) -> None:
    split = spec(engine="deepspeed", tensor_parallel=3, device=device, memory_bytes=GIB)
    args = args_of(split)
    assert isinstance(args, GeneratorArgs)
    assert args.tensor_parallel == 3
    options = deployment_options(split, ModelsArgs(replica_cpus=0.5))
    first, *ranks = options["placement_group_bundles"]
    assert first == {"CPU": 0.5, "memory": GIB}
    assert ranks == [RayRanks(args)._bundle] * 3
    assert "num_gpus" not in options["ray_actor_options"]
    state = ModelState(spec=split, phase="loading", attempt=1, changed_at=0)
    build_model(state, ModelsArgs())  # Serve checks that the replica fits into its bundle
    gpus = 3 if device == "cuda" else 0
    check_fit(split, ModelsArgs(), [NodeRoom(3.5, gpus, GIB)], GIB)
    with pytest.raises(InsufficientResources, match="needs 3.5 logical CPUs"):
        check_fit(split, ModelsArgs(), [NodeRoom(3, gpus, GIB)], GIB)


def test_engine_of_one_process_has_its_gpus_itself() -> None:
    split = spec(engine="vllm", tensor_parallel=2, device="cuda")
    options = deployment_options(split, ModelsArgs())
    assert options["ray_actor_options"]["num_gpus"] == 2
    assert "placement_group_bundles" not in options


def test_files_are_checked_again_before_replicas_start(files: Path) -> None:
    args = ModelsArgs(roots=(str(files),))
    (files / "link").symlink_to(files / "llama")
    made = spec_of(order(source=str(files / "link"), engine=None), 0, args)
    check_files(made, args)
    with pytest.raises(InvalidRequest):
        check_files(made, ModelsArgs(roots=(str(files / "bert"),)))
    (files / "link").unlink()
    (files / "other").mkdir()
    folder(files / "other" / "llama", LLAMA)
    (files / "link").symlink_to(files / "other" / "llama")
    with pytest.raises(InvalidRequest, match="leads elsewhere"):
        check_files(made, args)
    whole = spec_of(order(source=str(files / "llama"), engine=None), 0, args)
    [weights] = (files / "llama").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UnreadableModel):
        check_files(whole, args)


def test_file_with_a_digest_must_still_have_it(files: Path) -> None:
    args = ModelsArgs(roots=(str(files),))
    path = files / "m.gguf"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    made = spec_of(order(source=str(path), engine=None, sha256=digest), 0, args)
    check_files(made, args)
    with pytest.raises(UnreadableModel, match="SHA-256"):
        check_files(dataclasses.replace(made, sha256="0" * 64), args)


def test_what_has_no_files_here_is_not_looked_for() -> None:
    check_files(spec_of(order(), 0, ModelsArgs()), ModelsArgs())
    check_files(spec("m@1", source="hub:org/name", engine="transformers"), ModelsArgs())
