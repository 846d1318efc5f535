import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deployments.stores.faiss_views import faiss
from deployments.stores.selection import LivingRows, Selection

steps = st.lists(
    st.tuples(st.lists(st.integers(0, 63), max_size=20), st.booleans(), st.integers(0, 9)),
    max_size=12,
)


@given(steps)
def test_living_rows_are_a_set(steps):
    rows, expected, count = LivingRows(), set(), 64
    rows.make_room(count)
    for changed, alive, more in steps:
        rows.set(np.array(changed, dtype=np.int64), alive=alive)
        expected = expected | set(changed) if alive else expected - set(changed)
        count += more
        rows.make_room(count)
        assert rows.rows().tolist() == sorted(expected)
        assert len(rows) == len(expected)
        assert np.flatnonzero(rows.mask(count)).tolist() == sorted(expected)
        assert np.flatnonzero(LivingRows(rows.bits()).mask(count)).tolist() == sorted(expected)


def test_selectors_count_from_their_first_row():
    mask = np.zeros(100, dtype=bool)
    mask[[3, 8, 50, 99]] = True
    living = LivingRows()
    living.make_room(100)
    living.set(np.flatnonzero(mask), alive=True)
    for selected in (Selection(np.arange(100), mask), living):
        for first in (0, 8, 48, 96):
            selector = selected.selector(first)
            found = [first + row for row in range(100 - first) if selector.is_member(row)]
            assert found == [row for row in (3, 8, 50, 99) if row >= first]
    assert isinstance(living.selector(), faiss.IDSelectorBitmap)
