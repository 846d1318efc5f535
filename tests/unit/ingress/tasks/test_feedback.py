"""Feedback over HTTP."""

from typing import Any

import pytest

from tests.unit.ingress.tasks.conftest import House

PATH = "/v1/models/feedback"


async def test_feedback_on_an_answer_is_listed(house: House):
    async with house.client() as client, house.client("acme") as other:
        answer = await client.post("/v1/inference", json={"prompt": "x"})
        request_id = answer.headers["x-request-id"]
        body = {"request_id": request_id, "rating": 4, "comment": "good"}
        given = await client.post(PATH, json=body)
        assert given.status_code == 200, given.text
        assert (given.json()["scale"], given.json()["score"]) == ("stars", 0.5)
        listed = await client.get(PATH, params={"request_id": request_id})
        assert listed.json()["data"] == [given.json()]
        assert (await other.get(PATH)).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"rating": 6}, "rating"),
        ({"rating": -1, "scale": "stars"}, "rating"),
        ({"rating": 2, "scale": "thumbs"}, "rating"),
        ({"rating": 1.5}, "rating"),
        ({"rating": 1, "request_id": "a b"}, "request_id"),
        ({"rating": 1, "comment": "\x00"}, "comment"),
    ],
)
async def test_bad_feedback_is_refused(house: House, body: dict[str, Any], param: str):
    async with house.client() as client:
        response = await client.post(PATH, json={"request_id": "req_1", **body})
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
