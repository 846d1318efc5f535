"""The whole documented surface under generated requests, through the edge and real handles.

`make test-security` sends ten times as many.
"""

import os
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import ignored_auth

from tests.stack import Stack

schemathesis.serializer.alias("application/x-protobuf", "application/octet-stream")
IS_WHOLE = os.environ.get("RAGSERVE_TEST_SECURITY") == "all"
NUM_CASES = 20_000 if IS_WHOLE else 2_000
NUM_OF_ADMIN = 20_000 if IS_WHOLE else 500
"""Generated requests of an admin load models, too, and wait for them."""

TIMEOUT_S = 120
PUBLIC = {"/v1/health", "/v1/health/ready"}
ONLY_ADMINS = ("/v1/keys", "/v1/models/", "/v1/audit")
FOR_TENANTS = {"/v1/models/{model}", "/v1/models/feedback"}
"""Below one of these, and yet for any key, or one with the scope `feedback`."""


def sent(stack: Stack, headers: dict[str, str], num_cases: int) -> Counter[tuple[str, int]]:
    """Send that many requests, over all operations in turns; return path templates and statuses."""
    schema = schemathesis.openapi.from_url(f"{stack.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    answers: Counter[tuple[str, int]] = Counter()
    num_each = -(-num_cases // len(operations))
    while answers.total() < num_cases:
        for operation in operations:

            @settings(
                max_examples=num_each,
                deadline=None,
                derandomize=not answers,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def check(case: schemathesis.Case) -> None:
                response = case.call(headers=headers, timeout=TIMEOUT_S)
                assert response.status_code < 500, response.text
                answers[case.path, response.status_code] += 1

            check()
    return answers


def test_a14_b1_without_a_key_nothing_is_answered(stack: Stack) -> None:
    answers = sent(stack, {}, NUM_CASES)
    assert answers.total() >= NUM_CASES
    assert {path for path, status in answers if status < 400} <= PUBLIC


def test_b1_key_of_a_tenant_causes_no_server_error(stack: Stack) -> None:
    made = stack.command("keys", "create", "surface", "--tenant", "surface")
    assert made.returncode == 0, made.stderr
    answers = sent(stack, {"authorization": f"Bearer {made.stdout.strip()}"}, NUM_CASES)
    assert answers.total() >= NUM_CASES
    beyond = {
        (path, status)
        for path, status in answers
        if path.startswith(ONLY_ADMINS) and path not in FOR_TENANTS and status < 300
    }
    assert not beyond


def test_b1_key_of_an_admin_causes_no_server_error(stack: Stack) -> None:
    assert sent(stack, stack.headers, NUM_OF_ADMIN).total() >= NUM_OF_ADMIN


@pytest.mark.parametrize("path", ["/v1/models", "/v1/data/collections", "/v1/keys"])
def test_b1_answers_depend_on_the_key(stack: Stack, path: str) -> None:
    """Schemathesis's own check: nothing answers without a key, or with another."""
    schema = schemathesis.openapi.from_url(f"{stack.url}/openapi.json")
    case = schema[path]["GET"].Case()
    headers = {"Authorization": stack.headers["authorization"]}  # as the check spells it
    case.call_and_validate(headers=headers, checks=[ignored_auth], timeout=TIMEOUT_S)
