import pytest

from deployments.stores.aliases import switched
from deployments.types import Alias, AliasTarget, SwitchOrder


@pytest.mark.parametrize(
    ("before", "to", "percent", "after"),
    [
        ({"a": 100}, "b", 25, {"a": 75, "b": 25}),
        ({"a": 75, "b": 25}, "b", 50, {"a": 50, "b": 50}),
        ({"a": 40, "b": 60}, "c", 10, {"b": 90, "c": 10}),
        ({"a": 40, "b": 60}, "b", 10, {"a": 90, "b": 10}),
        ({"a": 100}, "a", 10, {"a": 100}),
        ({"a": 60, "b": 40}, "a", 100, {"a": 100}),
    ],
)
def test_shares_make_a_hundred(before, to, percent, after):
    alias = Alias("x", tuple(AliasTarget(*one) for one in before.items()))
    order = SwitchOrder(alias="x", to=to, canary_percent=percent)
    assert {one.model: one.percent for one in switched(alias, order).targets} == after
