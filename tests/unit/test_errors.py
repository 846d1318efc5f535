"""Every error survives a handle, and says what the API promises."""

import pickle

import pytest

from deployments import errors
from deployments.errors import RagError


def tree(root: type[RagError] = RagError) -> list[type[RagError]]:
    return [root, *(one for child in root.__subclasses__() for one in tree(child))]


@pytest.mark.parametrize("kind", tree())
def test_error_survives_pickling(kind: type[RagError]) -> None:
    error = kind("what went wrong")
    error.param = "stop"
    error.retry_after_s = 3
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.message, copy.param, copy.retry_after_s) == ("what went wrong", "stop", 3)


@pytest.mark.parametrize("kind", tree())
def test_error_has_one_sentence_code_and_status(kind: type[RagError]) -> None:
    assert kind.__doc__
    assert kind.__doc__.strip().endswith(".")
    assert 400 <= kind.status < 600
    assert kind.code.replace("_", "").isalpha()


def test_only_failures_of_the_moment_are_retryable() -> None:
    # A module's own kinds inherit the promise, and are here only if something imported them.
    public = {kind for kind in tree() if kind.__module__ == errors.__name__}
    retryable = {kind.__name__ for kind in public if kind.retryable}
    expected = {
        "RateLimited",
        "SecondFactorLocked",
        "EngineFailed",
        "StoreUnavailable",
        "Overloaded",
        "DeadlineExceeded",
        "NoReplica",
        "ModelUnavailable",
    }
    assert retryable == expected


def test_every_class_of_the_module_is_in_the_tree() -> None:
    classes = {one for one in vars(errors).values() if isinstance(one, type)}
    assert classes <= set(tree())
    assert len(classes) > 15
