"""Second factors: codes used once, drift, locks, recovery, and one winner of many."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyotp
import pytest
from sqlalchemy import text

from deployments.errors import (
    Conflict,
    DatabaseDamaged,
    NotFound,
    RagError,
    SecondFactorInvalid,
    SecondFactorLocked,
    SecondFactorRequired,
)
from deployments.stores import second_factors as module
from deployments.stores.database import Database
from deployments.stores.second_factors import (
    LOCKED_S,
    MAX_FAILURES,
    NUM_RECOVERY,
    STEP_S,
    Enrolment,
    SecondFactors,
)

KEY, OTHER = f"key_{'0' * 32}", f"key_{'1' * 32}"
START = 1_800_000_000


class Clock:
    def __init__(self) -> None:
        self.now_s = float(START)

    def time(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def factors(database: Database, tmp_path: Path) -> SecondFactors:
    return SecondFactors(database, tmp_path / "state")


def code_at(enrolment: Enrolment, seconds: float) -> str:
    return pyotp.TOTP(enrolment.secret).at(int(seconds))


def enrolled(factors: SecondFactors, clock: Clock) -> Enrolment:
    made = factors.enrol(KEY, "laptop")
    factors.confirm(KEY, code_at(made, clock.now_s))
    clock.now_s += STEP_S
    return made


def test_factor_counts_once_it_is_confirmed(factors: SecondFactors, clock: Clock):
    made = factors.enrol(KEY, "laptop")
    assert made.uri.startswith("otpauth://totp/ragserve:laptop?secret=")
    assert made.secret in made.uri
    assert not factors.is_enrolled(KEY)
    with pytest.raises(SecondFactorRequired):
        factors.use(KEY, code_at(made, clock.now_s))
    with pytest.raises(SecondFactorInvalid):
        factors.confirm(KEY, "000000")
    factors.confirm(KEY, code_at(made, clock.now_s))
    assert factors.is_enrolled(KEY)
    assert not factors.is_enrolled(OTHER)
    clock.now_s += STEP_S
    factors.use(KEY, code_at(made, clock.now_s))


def test_a15_code_is_used_once(factors: SecondFactors, clock: Clock):
    made = enrolled(factors, clock)
    code = code_at(made, clock.now_s)
    factors.use(KEY, code)
    for _ in range(3):
        with pytest.raises(SecondFactorInvalid):
            factors.use(KEY, code)
    with pytest.raises(SecondFactorInvalid):  # nor one of before
        factors.use(KEY, code_at(made, clock.now_s - STEP_S))


@pytest.mark.parametrize(("steps", "is_taken"), [(-2, False), (-1, True), (1, True), (2, False)])
def test_clock_may_be_off_by_one_step(
    factors: SecondFactors, clock: Clock, steps: int, is_taken: bool
):
    made = enrolled(factors, clock)
    clock.now_s += 10 * STEP_S
    code = code_at(made, clock.now_s + steps * STEP_S)
    if is_taken:
        factors.use(KEY, code)
        return
    with pytest.raises(SecondFactorInvalid):
        factors.use(KEY, code)


def test_a15_wrong_codes_lock_for_a_while(factors: SecondFactors, clock: Clock):
    made = enrolled(factors, clock)
    for _ in range(MAX_FAILURES):
        with pytest.raises(SecondFactorInvalid):
            factors.use(KEY, "000000")
    with pytest.raises(SecondFactorLocked) as caught:
        factors.use(KEY, code_at(made, clock.now_s))
    assert caught.value.retry_after_s == LOCKED_S + 1
    clock.now_s += LOCKED_S
    factors.use(KEY, code_at(made, clock.now_s))


def test_right_code_forgives_what_was_wrong_before(factors: SecondFactors, clock: Clock):
    made = enrolled(factors, clock)
    for _ in range(3):
        for _ in range(MAX_FAILURES - 1):
            with pytest.raises(SecondFactorInvalid):
                factors.use(KEY, "000000")
        factors.use(KEY, code_at(made, clock.now_s))
        clock.now_s += STEP_S


def test_recovery_code_works_once(factors: SecondFactors, clock: Clock):
    made = enrolled(factors, clock)
    assert len(set(made.recovery_codes)) == NUM_RECOVERY
    for code in made.recovery_codes:
        factors.use(KEY, f" {code.upper()} ")
        with pytest.raises(SecondFactorInvalid):
            factors.use(KEY, code)


def test_recovery_code_confirms_nothing(factors: SecondFactors, clock: Clock):
    made = factors.enrol(KEY, "laptop")
    with pytest.raises(SecondFactorInvalid):
        factors.confirm(KEY, made.recovery_codes[0])


def test_a15_of_many_that_use_a_code_at_once_one_wins(factors: SecondFactors, clock: Clock):
    made = enrolled(factors, clock)

    def use(code: str) -> bool:
        try:
            factors.use(KEY, code)
        except SecondFactorInvalid:
            return False
        return True

    for code in (code_at(made, clock.now_s), made.recovery_codes[0]):
        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(use, [code] * 4)) == 1


def test_factor_that_counts_is_not_replaced(factors: SecondFactors, clock: Clock):
    factors.enrol(KEY, "first")
    made = factors.enrol(KEY, "again")
    factors.confirm(KEY, code_at(made, clock.now_s))
    with pytest.raises(Conflict):
        factors.enrol(KEY, "third")
    factors.remove(KEY)
    with pytest.raises(NotFound):
        factors.remove(KEY)
    assert not factors.is_enrolled(KEY)
    factors.enrol(KEY, "third")


def test_code_of_another_key_is_wrong(factors: SecondFactors, clock: Clock):
    enrolled(factors, clock)
    other = factors.enrol(OTHER, "x")
    factors.confirm(OTHER, code_at(other, clock.now_s))
    clock.now_s += STEP_S
    for code in (code_at(other, clock.now_s), other.recovery_codes[0]):
        with pytest.raises(SecondFactorInvalid):
            factors.use(KEY, code)


@pytest.mark.parametrize("code", ["", "1", "१२३४५६", "0000000", "\0", "' OR 1=1"])
def test_text_that_is_no_code_is_wrong(factors: SecondFactors, clock: Clock, code: str):
    enrolled(factors, clock)
    with pytest.raises(SecondFactorInvalid):
        factors.use(KEY, code)


def test_secret_is_not_in_the_database_and_moved_rows_are_damage(
    factors: SecondFactors, clock: Clock, database: Database
):
    made = enrolled(factors, clock)
    with database.write() as connection:
        [row] = connection.execute(text("SELECT secret, recovery FROM second_factors")).all()
        assert made.secret.encode() not in bytes(row.secret)
        assert not any(code in str(row.recovery) for code in made.recovery_codes)
        connection.execute(text(f"UPDATE second_factors SET key_id = '{OTHER}'"))
    with pytest.raises(DatabaseDamaged):
        factors.use(OTHER, code_at(made, clock.now_s))


def test_errors_say_little(factors: SecondFactors, clock: Clock):
    made = enrolled(factors, clock)
    messages = set()
    for code in ("000000", code_at(made, clock.now_s - STEP_S), "zzzz-zzzz"):
        with pytest.raises(RagError) as caught:
            factors.use(KEY, code)
        messages.add(caught.value.message)
    assert len(messages) == 1
