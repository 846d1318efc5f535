"""Code and pickles in a model's folder never run, whoever is asked to load it."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deployments.config import GeneratorArgs
from deployments.engines.embedding.encoder import PaddedEncoder
from deployments.engines.embedding.model_folder import ModelFolder
from deployments.engines.generation.transformers.loading import read
from deployments.engines.reranking.transformers import CrossEncoder
from tests.unit.engines.generation.transformers.tiny import save_llama
from tests.unit.engines.reranking.tiny import save_bert


def generator(folder: Path) -> None:
    read(GeneratorArgs(source=str(folder), precision="fp32"))


def embedder(folder: Path) -> None:
    PaddedEncoder(ModelFolder(folder, "mean", 64), torch.device("cpu"), torch.float32)


def reranker(folder: Path) -> None:
    CrossEncoder(folder, "cpu", torch.float32)


LOADERS = [(save_llama, generator), (save_bert, embedder), (save_bert, reranker)]
pytestmark = pytest.mark.parametrize(
    ("save", "load"), LOADERS, ids=["generation", "embedding", "reranking"]
)

Save, Load = Callable[[Path], Path], Callable[[Path], None]


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (_write, (str(self.path),))


def _write(path: str) -> None:
    Path(path).write_text("ran")


def test_a5_pickle_is_not_read_where_there_are_no_safetensors(
    tmp_path: Path, save: Save, load: Load
) -> None:
    folder, ran = save(tmp_path / "m"), tmp_path / "ran"
    load(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(ran)))
    with pytest.raises(OSError, match="safetensors"):
        load(folder)
    assert not ran.exists()


def test_a5_code_of_the_models_own_is_not_run(tmp_path: Path, save: Save, load: Load) -> None:
    folder, ran = save(tmp_path / "m"), tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w').close()\nclass Config: pass\nclass Model: pass\n"
    (folder / "modeling_own.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    names = ("AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
    own = dict.fromkeys(names, "modeling_own.Model")
    own["AutoConfig"] = "modeling_own.Config"
    config |= {"auto_map": own, "model_type": "own"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises((ValueError, KeyError)):
        load(folder)
    assert not ran.exists()
    shutil.rmtree(folder)
