import numpy as np

from deployments.stores.growing import GrowingArray, capacity_for


def test_items_come_back_in_order_and_views_stay_as_they_were():
    array = GrowingArray(np.int64)
    early = None
    for start in range(0, 1000, 7):
        array.append(np.arange(start, min(start + 7, 1000)))
        if start == 70:
            early = array.values
    assert array.values.tolist() == list(range(1000))
    assert early is not None
    assert early.tolist() == list(range(77))


def test_small_appends_copy_each_item_a_few_times_and_leave_little_room():
    size = copied = 0
    for needed in range(1000, 1_000_000, 1000):
        if needed > size:
            copied += size
            size = capacity_for(size, needed)
    assert copied < 10 * 1_000_000
    assert size < 1.13 * 1_000_000
