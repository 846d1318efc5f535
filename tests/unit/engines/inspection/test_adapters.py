"""What an adapter's folder may hold, before anything of it is read."""

from pathlib import Path
from typing import Any

import pytest

from deployments.engines.inspection.adapters import MAX_RANK, Update, inspect_adapter
from deployments.errors import UnreadableModel
from tests.unit.engines.inspection.material import MODULE, adapter

A, B = (f"base_model.model.{MODULE}.lora_{half}.weight" for half in "AB")


def test_adapter_says_what_it_changes(tmp_path: Path) -> None:
    found = inspect_adapter(adapter(tmp_path / "a"))
    assert found.updates == (Update(MODULE, 2, 8, 6, 2.0),)
    assert found.num_bytes == (tmp_path / "a/adapter_model.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"use_rslora": True}, 4 / 2**0.5),
        ({"lora_alpha": 3}, 1.5),
        ({"alpha_pattern": {"q_proj": 10}}, 5.0),
        ({"alpha_pattern": {"proj": 10}}, 2.0),
        ({"alpha_pattern": {"self_attn.q_proj": 8, "q_proj": 10}}, 4.0),
        ({"r": 7, "rank_pattern": {MODULE: 2}}, 2.0),
    ],
)
def test_scale_is_what_the_configuration_says(
    tmp_path: Path, config: dict[str, Any], scale: float
) -> None:
    [update] = inspect_adapter(adapter(tmp_path, config)).updates
    assert update.scale == pytest.approx(scale)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"peft_type": "IA3"}, "IA3.*LORA"),
        ({"peft_type": None}, "LORA"),
        ({"use_dora": True}, "DoRA.*merge"),
        ({"bias": "all"}, "biases.*merge"),
        ({"lora_bias": True}, "biases.*merge"),
        ({"modules_to_save": ["embed_tokens"]}, "modules.*merge"),
        ({"trainable_token_indices": [3]}, "modules.*merge"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa.*merge"),
        ({"alora_invocation_tokens": [1, 2]}, "part of the text"),
        ({"layer_replication": [[0, 1]]}, "layer_replication.*merge"),
        ({"target_parameters": ["experts.w"]}, "target_parameters.*merge"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out.*merge"),
        ({"something_new": 1}, "something_new.*merge"),
        ({"r": 3}, "rank 3"),
        ({"r": MAX_RANK + 1}, str(MAX_RANK)),
        ({"r": True}, str(MAX_RANK)),
        ({"r": "2"}, str(MAX_RANK)),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"alpha_pattern": {"(a+)+$": 2}}, "alpha_pattern.*names"),
        ({"rank_pattern": [1]}, "rank_pattern.*names"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "code"),
    ],
)
def test_other_forms_are_refused_with_what_can_be_done(
    tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    with pytest.raises(UnreadableModel, match=says):
        inspect_adapter(adapter(tmp_path, config))


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({}, "nothing"),
        ({A: [2, 8]}, "one half"),
        ({A: [2, 8], B: [6, 3]}, "shapes"),
        ({A: [2, 8, 1], B: [6, 2]}, "shapes"),
        ({A: [2], B: [6, 2]}, "shapes"),
        ({A: [2, 8], B: [6, 2], "base_model.model.lm_head.weight": [2, 2]}, "linear layers"),
        ({A: [2, 8], B: [6, 2], f"base_model.model.{MODULE}.lora_magnitude_vector": [6]}, "linear"),
        ({f"x{A}": [2, 8], f"x{B}": [6, 2]}, "linear layers"),
    ],
)
def test_tensors_of_another_kind_are_refused(
    tmp_path: Path, shapes: dict[str, list[int]], says: str
) -> None:
    with pytest.raises(UnreadableModel, match=says):
        inspect_adapter(adapter(tmp_path, shapes=shapes))


def test_pickles_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = adapter(tmp_path) / "adapter_model.safetensors"
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(UnreadableModel, match="pickles"):
        inspect_adapter(tmp_path)
    assert inspect_adapter(tmp_path, is_trusted=True).updates
    (tmp_path / "adapter_model.bin").unlink()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnreadableModel, match="damaged"):
        inspect_adapter(tmp_path)
    path.unlink()
    with pytest.raises(UnreadableModel, match="safetensors"):
        inspect_adapter(tmp_path)
