"""The pace of a batch: fast where nobody minds, slow where it shows."""

import asyncio

from deployments.ingress.batches.pace import QUIET_S, ROUND, Pace


def round_of(pace: Pace, seconds: float) -> None:
    for _ in range(max(ROUND, pace.limit)):
        pace.note(seconds)


def grown(max_at_once: int = 16) -> Pace:
    pace = Pace(max_at_once)
    for _ in range(5):
        round_of(pace, 1.0)
    return pace


def test_limit_doubles_up_to_its_bound() -> None:
    pace, limits = Pace(10), []
    for _ in range(5):
        limits.append(pace.limit)
        round_of(pace, 1.0)
    assert limits == [4, 8, 10, 10, 10]
    assert Pace(2).limit == 2


def test_slow_round_halves_and_then_it_grows_by_one() -> None:
    pace = grown()
    round_of(pace, 2.6)
    assert pace.limit == 8
    round_of(pace, 1.9)
    assert pace.limit == 9
    round_of(pace, 1.0)
    assert pace.limit == 10


def test_few_slow_lines_are_no_slow_round() -> None:
    pace = grown()
    for number in range(16):
        pace.note(50.0 if number % 4 == 0 else 1.0)
    assert pace.limit == 16


def test_refusals_of_one_moment_halve_once_and_it_goes_down_to_one() -> None:
    pace = grown()
    for _ in range(9):
        pace.refuse()
    assert pace.limit == 8
    for _ in range(60):
        pace.refuse()
    assert pace.limit == 1


def test_round_with_a_refusal_does_not_grow() -> None:
    pace = grown()
    pace.refuse()
    round_of(pace, 1.0)
    assert pace.limit == 8
    round_of(pace, 1.0)
    assert pace.limit == 9


def test_best_is_forgotten() -> None:
    pace = grown()
    for _ in range(200):
        round_of(pace, 3.0)
    assert pace.limit == 16


def test_batch_begins_again_with_one_line_when_others_come() -> None:
    pace = grown()
    pace.make_way(QUIET_S)
    assert pace.limit == 16
    pace.make_way(QUIET_S / 2)
    assert pace.limit == 1
    limits = []
    for seconds in (1.0, 1.05, 1.2, 1.05, 1.0, 1.0, 1.0):
        round_of(pace, seconds)
        limits.append(pace.limit)
    assert limits == [2, 3, 1, 2, 3, 4, 4]  # a fourth of 16
    pace.make_way(0.0)  # as before
    assert pace.limit == 4


def test_batch_that_is_alone_again_doubles() -> None:
    pace = grown()
    pace.make_way(0.0)
    pace.make_way(QUIET_S)
    limits = []
    for _ in range(4):
        round_of(pace, 1.0)
        limits.append(pace.limit)
    assert limits == [2, 4, 8, 16]


async def test_no_more_lines_run_than_the_limit() -> None:
    pace = Pace(2)
    pace.make_way(0.0)
    pace.make_way(QUIET_S)
    await pace.enter()
    second = asyncio.ensure_future(pace.enter())
    await asyncio.sleep(0.01)
    assert not second.done()
    round_of(pace, 1.0)
    await asyncio.wait_for(second, 1)
    third = asyncio.ensure_future(pace.enter())
    await asyncio.sleep(0.01)
    assert not third.done()
    pace.leave()
    await asyncio.wait_for(third, 1)
