"""Files over HTTP, through OpenAI's own client."""

import asyncio

import httpx
import openai
import pytest

from tests.unit.ingress.conftest import KEY
from tests.unit.ingress.tasks.conftest import Built, House, client_of

MISSING = f"file_{'0' * 32}"
BIG = b"0123456789abcdef" * 150_000
FORM = {"purpose": "batch"}


async def test_file_is_kept_listed_read_and_deleted(client: openai.AsyncOpenAI) -> None:
    file = await client.files.create(file=("big näme.bin", BIG), purpose="user_data")
    assert (file.bytes, file.filename, file.purpose) == (len(BIG), "big näme.bin", "user_data")
    assert (file.object, file.status, file.expires_at) == ("file", "processed", None)
    assert await client.files.retrieve(file.id) == file
    assert (await client.files.content(file.id)).content == BIG
    gone = await client.files.delete(file.id)
    assert (gone.id, gone.deleted, gone.object) == (file.id, True, "file")
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(file.id)


async def test_list_pages_as_the_client_asks(client: openai.AsyncOpenAI) -> None:
    made = [await client.files.create(file=b"x", purpose="batch") for _ in range(5)]
    ids = [file.id for file in made]
    assert [file.id async for file in client.files.list(limit=2)] == ids[::-1]
    assert [file.id async for file in client.files.list(limit=2, order="asc")] == ids
    assert [file.id async for file in client.files.list(purpose="vision")] == []
    page = await client.files.list(limit=2)
    assert (page.has_more, page.first_id, page.last_id) == (True, ids[4], ids[3])


async def test_file_expires_when_that_was_said(client: openai.AsyncOpenAI) -> None:
    hour = {"anchor": "created_at", "seconds": 3600}
    file = await client.files.create(file=b"x", purpose="batch", expires_after=hour)
    assert file.expires_at == file.created_at + 3600
    usual = await client.files.create(file=b"x", purpose="batch")
    assert usual.expires_at == usual.created_at + 30 * 86_400


@pytest.mark.parametrize(
    ("data", "param"),
    [
        ({}, "purpose"),
        ({"purpose": "batch_output"}, "purpose"),
        ({**FORM, "expires_after[anchor]": "created_at"}, "expires_after[seconds]"),
        ({**FORM, "expires_after[seconds]": "3600"}, "expires_after[anchor]"),
        (
            {**FORM, "expires_after[anchor]": "created_at", "expires_after[seconds]": "59"},
            "expires_after[seconds]",
        ),
        ({**FORM, "extra": "1"}, "extra"),
    ],
)
async def test_bad_form_names_the_field(house: House, data: dict[str, str], param: str) -> None:
    async with house.client() as client:
        response = await client.post("/v1/files", data=data, files={"file": ("a", b"x")})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


async def test_what_is_no_file_is_refused(house: House) -> None:
    async with house.client() as client:
        for sent in (
            {"data": FORM, "files": {"file": ("a", b"")}},
            {"data": FORM, "files": {"other": ("a", b"x")}},
            {"data": {**FORM, "file": "text"}},
            {"json": FORM},
            {"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            {"files": [("file", ("a", b"x")), ("file", ("b", b"y"))], "data": FORM},
        ):
            response = await client.post("/v1/files", **sent)  # type: ignore[arg-type]
            assert response.status_code == 400, response.text
        assert (await client.get("/v1/files")).json()["data"] == []


async def test_bounds_are_named(house_of: Built) -> None:
    house = house_of(
        max_body_bytes=5000, batches={"max_file_bytes": 100, "max_files": 2, "max_total_bytes": 150}
    )
    async with house.client() as client:

        async def sent(size: int) -> httpx.Response:
            files = {"file": ("a", b"x" * size)}
            return await client.post("/v1/files", data=FORM, files=files)

        for size, said in ((6000, "5000 bytes"), (101, "100 bytes")):
            response = await sent(size)
            assert response.status_code == 413
            assert said in response.json()["error"]["message"]
        assert (await sent(100)).status_code == 200
        assert "150 bytes" in (await sent(51)).json()["error"]["message"]
        assert (await sent(1)).status_code == 200
        assert "2 files" in (await sent(1)).json()["error"]["message"]


async def test_foreign_file_is_a_missing_one_to_the_byte(house: House) -> None:
    async with client_of(house) as ours, house.client("acme") as theirs:
        file = await ours.files.create(file=b"secret", purpose="batch")
        for method, end in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            answers = []
            for id_ in (file.id, MISSING):
                response = await theirs.request(method, f"/v1/files/{id_}{end}")
                error = {**response.json()["error"], "request_id": ""}
                answers.append((response.status_code, error))
            assert answers[0] == answers[1]
            assert answers[0][0] == 404
        body = {"endpoint": "/v1/completions", "completion_window": "24h"}
        refused = [
            {
                **(await theirs.post("/v1/batches", json={**body, "input_file_id": id_})).json()[
                    "error"
                ],
                "request_id": "",
            }
            for id_ in (file.id, MISSING)
        ]
        assert refused[0] == refused[1]
        assert (await theirs.get("/v1/files")).json()["data"] == []
        assert (await ours.files.content(file.id)).content == b"secret"


async def test_upload_happens_once_for_an_idempotency_key(house: House) -> None:
    headers = {"idempotency-key": "upload-1"}
    async with house.client() as client:

        async def sent(data: bytes) -> httpx.Response:
            files = {"file": ("a", data)}
            return await client.post("/v1/files", data=FORM, files=files, headers=headers)

        first, second = await sent(b"x"), await sent(b"x")
        assert first.json() == second.json()
        assert second.headers["idempotent-replayed"] == "true"
        assert (await sent(b"y")).status_code == 422
        assert len((await client.get("/v1/files")).json()["data"]) == 1


async def test_key_needs_the_scopes(house: House) -> None:
    async with client_of(house) as client:
        file = await client.files.create(file=b"{}", purpose="batch")
    async with client_of(house, f"{KEY}-with-tasks") as client:
        with pytest.raises(openai.PermissionDeniedError, match="inference"):
            await client.batches.create(
                input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
            )
    async with client_of(house, f"{KEY}-with-inference") as client:
        with pytest.raises(openai.PermissionDeniedError, match="tasks"):
            await client.files.list()


async def test_upload_whose_client_leaves_is_not_kept(house: House) -> None:
    async with house.client() as client:
        sending = asyncio.ensure_future(
            client.post("/v1/files", data=FORM, files={"file": ("a", BIG)})
        )
        await asyncio.sleep(0.02)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        listed = (await client.get("/v1/files")).json()["data"]
    assert all(one["bytes"] == len(BIG) for one in listed)
