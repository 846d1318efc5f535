import numpy as np
import pytest

from deployments.errors import InvalidRequest
from deployments.stores.vectors import MAX_NUMBER, ready_vector


def test_vector_for_cosines_is_normalised_whatever_its_length():
    for scale in (1e-200, 1.0, 1e200):
        vector = ready_vector([3 * scale, 4 * scale], 2, "v")
        np.testing.assert_allclose(vector, [0.6, 0.8], rtol=1e-6)
        assert vector.dtype == np.float32


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_vector_for_other_metrics_stays_as_it_is(metric: str):
    assert ready_vector([3, -4.5], 2, "v", metric).tolist() == [3.0, -4.5]
    assert ready_vector([0, 0], None, "v", metric).tolist() == [0.0, 0.0]
    assert np.isfinite(ready_vector([MAX_NUMBER, -MAX_NUMBER], 2, "v", metric).astype("f2")).all()


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("numbers", [[1.0], [1.0, float("nan")], [1.0, float("-inf")]])
def test_vector_that_cannot_be_is_refused_by_name(metric: str, numbers: list[float]):
    with pytest.raises(InvalidRequest) as caught:
        ready_vector(numbers, 2, "documents[3].vector", metric)
    assert caught.value.param == "documents[3].vector"


@pytest.mark.parametrize(("metric", "numbers"), [("cosine", [0, 0]), ("dot", [70_000, 0])])
def test_vector_without_direction_or_too_large_is_refused(metric: str, numbers: list[float]):
    with pytest.raises(InvalidRequest):
        ready_vector(numbers, 2, "v", metric)
