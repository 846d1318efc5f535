import json
from pathlib import Path

import pytest

from deployments.engines.inspection.files import inspect
from deployments.engines.weights import Weights
from deployments.errors import UnreadableModel
from tests.unit.engines.inspection.material import BERT, LLAMA, folder, gguf, safetensors


@pytest.mark.parametrize(
    ("config", "kind", "kv_width"),
    [
        (LLAMA, "generation", 2 * 3 * 2 * 8),
        ({"text_config": LLAMA, "architectures": ["XForCausalLM"]}, "generation", 96),
        (BERT, "embedding", 2 * 2 * 2 * 4),
        ({"architectures": ["BertForSequenceClassification"]}, "reranking", 0),
        ({}, "embedding", 0),
        ({"architectures": "x", "num_hidden_layers": "many"}, "embedding", 0),
    ],
)
def test_folder_says_what_it_is(tmp_path: Path, config: dict, kind: str, kv_width: int) -> None:
    found = inspect(Weights(folder(tmp_path / "m", config)), is_trusted=False)
    assert (found.kind, found.num_parameters, found.kv_width) == (kind, 8, kv_width)
    assert found.num_bytes == (tmp_path / "m/model.safetensors").stat().st_size


def test_gguf_file_says_what_it_is(tmp_path: Path) -> None:
    gguf(tmp_path / "m.gguf")
    found = inspect(Weights(tmp_path, "m.gguf"), is_trusted=False)
    assert (found.kind, found.num_parameters, found.kv_width) == ("generation", 16, 96)
    gguf(tmp_path / "n.gguf", tokens=())
    with pytest.raises(UnreadableModel, match="tokenizer"):
        inspect(Weights(tmp_path, "n.gguf"), is_trusted=False)


def test_shards_are_all_checked(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", LLAMA)
    (path / "model.safetensors").unlink()
    for name in ("one.safetensors", "two.safetensors"):
        safetensors(path / name)
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    assert inspect(Weights(path), is_trusted=False).num_parameters == 16
    (path / "two.safetensors").write_bytes(b"cut")
    with pytest.raises(UnreadableModel, match="two.safetensors is damaged"):
        inspect(Weights(path), is_trusted=False)
    (path / "two.safetensors").unlink()
    with pytest.raises(UnreadableModel, match="no two.safetensors"):
        inspect(Weights(path), is_trusted=False)
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(UnreadableModel, match="names no files"):
        inspect(Weights(path), is_trusted=False)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors"])
def test_missing_file_is_told(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path / "m", LLAMA)
    (path / name).unlink()
    with pytest.raises(UnreadableModel, match=name.partition(".")[0]):
        inspect(Weights(path), is_trusted=False)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "[" * 100_000, '{"a": 1'])
def test_configuration_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    path = folder(tmp_path / "m", LLAMA)
    (path / "config.json").write_text(text)
    with pytest.raises(UnreadableModel, match="config.json"):
        inspect(Weights(path), is_trusted=False)


@pytest.mark.parametrize(
    "name", ["modeling.py", "pytorch_model.bin", "a.pt", "b.PKL", "deep/er/c.ckpt"]
)
def test_a5_code_and_pickles_are_refused_unless_the_folder_is_trusted(
    tmp_path: Path, name: str
) -> None:
    path = folder(tmp_path / "m", LLAMA)
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(b"x")
    with pytest.raises(UnreadableModel, match="code and pickles"):
        inspect(Weights(path), is_trusted=False)
    assert inspect(Weights(path), is_trusted=True).kind == "generation"


@pytest.mark.parametrize("is_trusted", [False, True])
def test_pickles_alone_are_no_model_even_where_they_may_lie(
    tmp_path: Path, is_trusted: bool
) -> None:
    path = folder(tmp_path / "m", LLAMA)
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(UnreadableModel, match="only safetensors" if is_trusted else "pickles"):
        inspect(Weights(path), is_trusted=is_trusted)


def test_code_of_the_models_own_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", LLAMA | {"auto_map": {"AutoModel": "x.Y"}})
    with pytest.raises(UnreadableModel, match="code of the model's own"):
        inspect(Weights(path), is_trusted=False)
