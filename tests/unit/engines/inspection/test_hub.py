"""What a hub offers is asked for within a bound, and refused where it is none."""

import pytest

from deployments.config import ModelsArgs
from deployments.engines.inspection import hub as module
from deployments.engines.inspection.hub import HubFile, Unreachable, ask, found
from deployments.errors import InvalidRequest
from tests.unit.engines.inspection.hub_server import COMMIT, Hub

ARGS = ModelsArgs(allow_hub=True)


def test_offer_has_safetensors_and_settings_and_nothing_else(hub: Hub) -> None:
    offer = ask("org/name", ARGS)
    assert (offer.revision, offer.commit, offer.kind) == ("main", COMMIT, "generation")
    assert {one.path for one in offer.files} == {
        "config.json",
        "model.safetensors",
        "1_Pooling/config.json",
    }
    assert offer.weights_bytes == 1 << 20
    assert [one.sha256 != "" for one in offer.files] == [False, True, False]
    assert found("org/name") is None
    assert ask("org/name@v1.0", ARGS).revision == "v1.0"


def test_kind_is_what_the_folder_would_be_of(hub: Hub) -> None:
    hub.files["modules.json"] = b"[]"
    assert ask("org/name", ARGS).kind == "embedding"


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "GatedRepo", "accepted its terms"),
        (403, "", "accepted its terms"),
        (401, "", "no such model"),
        (404, "RepoNotFound", "no such model"),
        (418, "", "it answered 418"),
    ],
)
def test_hub_that_gives_nothing_is_told(hub: Hub, status: int, code: str, said: str) -> None:
    hub.status, hub.error_code = status, code
    with pytest.raises(InvalidRequest, match=said) as caught:
        ask("org/name", ARGS)
    assert caught.value.param == "source"
    assert not isinstance(caught.value, Unreachable)
    assert hub.url not in caught.value.message


@pytest.mark.parametrize("model", ["../x", "a/b/c", "a", "a/..", "a/b@", "a/b@x/y", ""])
def test_ids_that_are_none_are_refused_before_anything_is_asked(hub: Hub, model: str) -> None:
    hub.status = 500
    with pytest.raises(InvalidRequest, match="a model of a hub is"):
        ask(model, ARGS)
    with pytest.raises(InvalidRequest, match="has not allowed it"):
        ask(model, ModelsArgs())


def test_hub_that_does_not_answer_is_unreachable(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.status = 503
    with pytest.raises(Unreachable, match="it answered 503"):
        ask("org/name", ARGS)
    hub.status, hub.break_after = 200, 10
    hub.gate.clear()
    monkeypatch.setattr(module, "ANSWER_S", 0.2)
    with pytest.raises(Unreachable, match="ReadTimeout"):
        ask("org/name", ARGS)


@pytest.mark.parametrize("path", ["../config.json", "/etc/a.json", "a/../../b.json", "a\\b.json"])
def test_files_outside_of_the_folder_are_refused(hub: Hub, path: str) -> None:
    hub.files[path] = b"{}"
    with pytest.raises(InvalidRequest, match="outside"):
        ask("org/name", ARGS)


def test_model_without_safetensors_is_refused(hub: Hub) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(InvalidRequest, match="no safetensors"):
        ask("org/name", ARGS)


def test_file_is_its_path_and_size(hub: Hub) -> None:
    assert HubFile("config.json", len(hub.files["config.json"])) in ask("org/name", ARGS).files
