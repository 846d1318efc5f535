"""The whole documented surface under generated requests, through the edge and real handles."""

import schemathesis
from hypothesis import HealthCheck, given, settings

from tests.stack import Stack

schemathesis.serializer.alias("application/x-protobuf", "application/octet-stream")
NUM_EXAMPLES = 12
TIMEOUT_S = 120
"""Generated requests load real models, too, and wait for them."""


def test_b1_no_request_causes_a_server_error(stack: Stack) -> None:
    schema = schemathesis.openapi.from_url(f"{stack.url}/openapi.json")
    num_sent = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=NUM_EXAMPLES,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            nonlocal num_sent
            num_sent += 1
            response = case.call(headers=stack.headers, timeout=TIMEOUT_S)
            assert response.status_code < 500, response.text

        check()
    assert num_sent > 100
