"""Logs say where a request failed, and nothing of what it said."""

import logging
from collections.abc import Iterator

import pytest

from deployments.discretion import SERVE, Discretion, be_discreet
from deployments.errors import CollectionNotFound


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    log = logging.getLogger(SERVE)
    kept = list(log.filters)
    log.filters.clear()
    be_discreet()
    be_discreet()
    yield log
    log.filters[:] = kept


def fail(log: logging.Logger, error: Exception) -> None:
    try:
        raise error
    except Exception:
        log.exception("Request failed.")


def test_filter_is_there_once(log: logging.Logger) -> None:
    assert [type(one) for one in log.filters] == [Discretion]


def test_a16_refusals_of_ours_are_not_logged(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    fail(log, CollectionNotFound("collection secret does not exist"))
    assert not caplog.records


def test_a16_other_failures_say_where_and_not_what(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    fail(log, ValueError("cannot read: a secret"))
    assert "Request failed. ValueError" in caplog.text
    assert "test_discretion.py" in caplog.text
    assert "a secret" not in caplog.text


def test_what_has_no_exception_is_logged_as_it_is(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    log.warning("%d replicas", 3)
    assert "3 replicas" in caplog.text
