"""Every call leaves one record, and what changes something leaves it before anybody is told."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from pathlib import Path

import httpx
import pytest

from deployments.config import AuditArgs, Settings
from deployments.errors import EngineFailed, StoreUnavailable
from deployments.ingress.access import CHANGES, ONE_ROW
from deployments.ingress.entry import handle_call, touch
from deployments.ingress.metrics import Metrics
from deployments.stores.audit import writer
from deployments.stores.audit.log import AuditLog, open_audit
from deployments.types import Document
from deployments.types.audit import INTENT, AuditFilter, AuditRecord, Chained
from tests.unit.ingress.conftest import KEY, OPERATOR, Build, Served, in_process
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.test_access import OPERATIONS, VALUES, Operation

ALL = AuditFilter()
INTENTS = AuditFilter(status=INTENT)
ASK = {"model": "fake-model", "messages": [{"role": "user", "content": "a secret question"}]}


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AuditLog]:
    monkeypatch.setattr(writer, "MAX_AGE_S", 0.02)
    log = open_audit(Settings(state_dir=tmp_path), AuditArgs())
    log.start()
    yield log
    log.close()


@pytest.fixture
async def audited(build: Build, log: AuditLog) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process(build(audit=log)) as client:
        yield client


async def records(log: AuditLog, wanted: AuditFilter = ALL, num: int = 1) -> list[Chained]:
    """Return what is on the disk, the oldest first, once it is so much."""
    async with asyncio.timeout(10):
        while len(found := log.page(wanted, limit=1000)) < num:
            await asyncio.sleep(0.02)
    return found[::-1]


async def only(log: AuditLog) -> AuditRecord:
    (found,) = await records(log)
    return found.record


async def test_read_leaves_who_what_and_how_it_ended(
    audited: httpx.AsyncClient, log: AuditLog
) -> None:
    answer = await audited.post("/v1/chat/completions", json=ASK)
    record = await only(log)
    assert (record.tenant, record.key_id, record.operation) == (
        "default",
        "key_1",
        "createChatCompletion",
    )
    assert (record.method, record.status, record.error) == ("POST", 200, "")
    assert record.request_id == answer.headers["x-request-id"]
    usage = answer.json()["usage"]
    assert (record.tokens_in, record.tokens_out) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
    assert record.latency_us > 0
    assert record.address == "127.0.0.1"
    assert record.touched == (("model", "fake-model"),)


async def test_stream_leaves_its_tokens(audited: httpx.AsyncClient, log: AuditLog) -> None:
    await audited.post("/v1/chat/completions", json={**ASK, "stream": True})
    record = await only(log)
    assert (record.status, record.tokens_out > 0) == (200, True)


async def test_stream_that_fails_leaves_its_error(
    audited: httpx.AsyncClient, log: AuditLog, graph: FakeGraph
) -> None:
    graph.error = EngineFailed("the replica was lost")
    graph.num_before_error = 1
    await audited.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert (await only(log)).error == "engine_failed"


@pytest.mark.parametrize(
    ("path", "bearer", "status", "error", "operation"),
    [
        ("/v1/models", "rk-unknown", 401, "invalid_api_key", "listModels"),
        ("/v1/keys", KEY, 403, "forbidden", "listKeys"),
        ("/v1/nope", KEY, 404, "not_found", ""),
        ("/v1/data/collections/nope", KEY, 404, "collection_not_found", "getCollection"),
        ("/v1/health", "", 200, "", "health"),
        ("/docs", "", 200, "", ""),
    ],
)
async def test_refusal_leaves_a_record_too(
    audited: httpx.AsyncClient,
    log: AuditLog,
    path: str,
    bearer: str,
    status: int,
    error: str,
    operation: str,
) -> None:
    headers = {"authorization": f"Bearer {bearer}"}
    assert (await audited.get(path, headers=headers)).status_code == status
    record = await only(log)
    assert (record.status, record.error, record.operation) == (status, error, operation)
    assert record.key_id == ("key_1" if bearer == KEY else "")


async def test_change_is_on_the_disk_when_it_is_answered(
    audited: httpx.AsyncClient, log: AuditLog
) -> None:
    made = await audited.post("/v1/data/collections", json={"name": "docs"})
    assert made.status_code == 201
    intent, outcome = (log.page(one, limit=10)[0] for one in (INTENTS, ALL))
    assert (intent.record.status, outcome.record.status) == (INTENT, 201)
    assert intent.record.request_id == outcome.record.request_id
    assert intent.position.sequence + 1 == outcome.position.sequence
    assert outcome.record.touched == (("collection", "docs"),)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one[0])
async def test_every_operation_leaves_one_record(
    audited: httpx.AsyncClient, log: AuditLog, operation: Operation
) -> None:
    id_, method, path = operation
    answer = await audited.request(method, path.format(**VALUES), headers=OPERATOR)
    records_of_it = [one.record for one in await records(log)]
    assert [one.operation for one in records_of_it] == [id_]
    assert records_of_it[0].status == answer.status_code
    intents = [one.record.operation for one in log.page(INTENTS, limit=10)]
    assert intents == ([id_] if id_ in CHANGES - ONE_ROW else [])


def test_every_operation_is_known_to_change_something_or_not() -> None:
    known = {id_ for id_, method, _ in OPERATIONS if method != "GET"}
    assert known >= CHANGES


async def test_change_of_a_caller_that_may_not_has_no_intent(
    audited: httpx.AsyncClient, log: AuditLog
) -> None:
    headers = {"authorization": f"Bearer {KEY}-with-data"}
    refused = await audited.post("/v1/data/collections", json={"name": "docs"}, headers=headers)
    assert refused.status_code == 403
    assert (await only(log)).error == "forbidden"
    assert log.page(INTENTS, limit=10) == []


async def test_log_holds_no_content(
    audited: httpx.AsyncClient, log: AuditLog, graph: FakeGraph, tmp_path: Path
) -> None:
    graph.stored["docs"] = {}
    document = {"id": "canary-id", "text": "canary-text", "title": "canary-title"}
    document |= {"metadata": {"canary-name": "canary-value"}, "subject": "canary-subject"}
    index = {"collection": "docs", "documents": [document]}
    assert (await audited.post("/v1/data/index", json=index)).status_code == 200
    await audited.get("/v1/data/documents/canary-id?collection=docs")
    search = {"collection": "docs", "query": "canary-query"}
    assert (await audited.post("/v1/data/search", json=search)).status_code == 200
    await audited.post("/v1/data/delete", json={"subject": "canary-subject"})
    await audited.post("/v1/chat/completions", json={**ASK, "model": "canary-model"})
    await audited.get("/canary-path")
    await audited.get("/v1/models", headers={"authorization": "Bearer canary-key"})
    await records(log, num=7)
    log.close()
    assert b"canary" not in b"".join(one.read_bytes() for one in tmp_path.glob("audit.*"))


async def test_subject_of_an_erasure_is_a_keyed_hash(
    audited: httpx.AsyncClient, log: AuditLog
) -> None:
    answer = await audited.post("/v1/data/delete", json={"subject": "ann"})
    touched = dict((await only(log)).touched)
    assert touched == {"subject": log.pseudonym("ann"), "erasure": answer.json()["id"]}


class Broken:
    """A log that cannot be written."""

    num_dropped = 0

    @property
    def is_well(self) -> bool:
        return self.num_sound > 0

    def __init__(self, num_sound: int = 0) -> None:
        self.num_sound = num_sound
        self.recorded: list[AuditRecord] = []

    def record(self, record: AuditRecord) -> None:
        self.recorded.append(record)

    def submit(self, record: AuditRecord) -> "Future[None]":
        done: Future[None] = Future()
        self.num_sound -= 1
        if self.num_sound >= 0:
            done.set_result(None)
        else:
            done.set_exception(StoreUnavailable("the audit log cannot be written"))
        return done

    def pseudonym(self, name: str) -> str:
        return "hash"


async def test_change_is_not_begun_when_it_cannot_be_written_down(
    build: Build, graph: FakeGraph
) -> None:
    log = Broken()
    async with in_process(build(audit=log)) as client:
        refused = await client.post("/v1/data/collections", json={"name": "docs"})
        read = await client.get("/v1/data/collections")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert "docs" not in graph.stored
    assert read.status_code == 200
    assert [one.status for one in log.recorded] == [503, 200]


async def test_success_is_not_told_when_it_cannot_be_written_down(
    build: Build, graph: FakeGraph
) -> None:
    log = Broken(num_sound=1)
    async with in_process(build(audit=log)) as client:
        refused = await client.post("/v1/data/collections", json={"name": "docs"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
    assert "docs" in graph.stored


async def test_client_that_leaves_is_recorded(
    build: Build, served: Served, log: AuditLog, graph: FakeGraph
) -> None:
    graph.delay_s = 30
    async with served(build(audit=log)) as client:
        call = asyncio.create_task(client.post("/v1/inference", json={"prompt": "hi"}))
        while not graph.num_running:
            await asyncio.sleep(0.01)
        call.cancel()
        assert (await only(log)).status == 499


async def test_logs_are_shown_by_what_is_asked(
    audited: httpx.AsyncClient, log: AuditLog, graph: FakeGraph
) -> None:
    graph.stored["docs"] = {"a": Document(id="a", text="x")}
    for _ in range(3):
        await audited.post("/v1/data/search", json={"collection": "docs", "query": "x"})
    await audited.get("/v1/nope")
    await records(log, num=4)

    async def shown(**params: str | int) -> dict:
        answer = await audited.get("/v1/audit/logs", params=params, headers=OPERATOR)
        assert answer.status_code == 200, answer.text
        return answer.json()

    first = await shown(operation="search", limit=2)
    rest = await shown(operation="search", limit=2, after=first["next"])
    assert [len(page["data"]) for page in (first, rest)] == [2, 1]
    assert (first["has_more"], rest["has_more"], rest["next"]) == (True, False, None)
    assert len({one["id"] for page in (first, rest) for one in page["data"]}) == 3
    one = first["data"][0]
    assert (one["status"], one["key_id"], one["tenant"]) == (200, "key_1", "default")
    assert one["touched"] == [{"kind": "collection", "id": "docs"}]
    assert [one["status"] for one in (await shown(status="4xx"))["data"]] == [404]
    assert (await shown(status="404", operation="search"))["data"] == []
    assert len((await shown(until=one["time"]))["data"]) == 2
    assert (await shown(since="2099-01-01T00:00:00Z"))["data"] == []
    assert (await shown(key="key_9"))["data"] == []


@pytest.mark.parametrize(
    "params",
    [
        {"since": "yesterday"},
        {"until": "2026-11-23T00:00:00"},
        {"status": "600"},
        {"after": "x"},
        {"limit": 0},
    ],
    ids=str,
)
async def test_logs_refuse_what_is_no_question(
    audited: httpx.AsyncClient, params: dict[str, str]
) -> None:
    answer = await audited.get("/v1/audit/logs", params=params, headers=OPERATOR)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(params)))


async def test_logs_of_a_tenant_are_its_own(build: Build, log: AuditLog) -> None:
    async with in_process(build(audit=log)) as client:
        for bearer in (f"{KEY}-of-acme", KEY, "rk-unknown"):
            await client.get("/v1/models", headers={"authorization": f"Bearer {bearer}"})
        await records(log, num=3)
        own = {"authorization": f"Bearer {KEY}-with-audit"}
        found = (await client.get("/v1/audit/logs", headers=own)).json()["data"]
        assert {one["tenant"] for one in found} == {"default"}
        foreign = await client.get("/v1/audit/logs", params={"tenant": "acme"}, headers=own)
        assert foreign.status_code == 403
        all_ = await client.get("/v1/audit/logs", headers=OPERATOR)
        assert {one["tenant"] for one in all_.json()["data"]} >= {"default", "acme", None}


async def test_verify_is_for_admins_and_says_what_it_read(
    audited: httpx.AsyncClient, log: AuditLog
) -> None:
    await audited.post("/v1/data/collections", json={"name": "docs"})
    own = {"authorization": f"Bearer {KEY}-with-audit"}
    assert (await audited.get("/v1/audit/verify", headers=own)).status_code == 403
    proof = (await audited.get("/v1/audit/verify", headers=OPERATOR)).json()
    assert (proof["is_unbroken"], proof["first_wrong"]) == (True, None)
    assert proof["num_records"] >= 2


async def test_without_a_log_there_is_none_to_show(client: httpx.AsyncClient) -> None:
    for path in ("logs", "verify"):
        answer = await client.get(f"/v1/audit/{path}", headers=OPERATOR)
        assert answer.status_code == 404


async def test_call_over_a_handle_is_recorded(log: AuditLog) -> None:
    async with handle_call(log, "index", is_change=True):
        assert [one.record.operation for one in log.page(INTENTS, limit=9)] == ["index"]
        touch("collection", "docs")
    with pytest.raises(EngineFailed):
        async with handle_call(log, "search", is_change=False):
            raise EngineFailed("lost")
    index, search = (one.record for one in await records(log, num=2))
    assert (index.method, index.status, index.touched) == ("HANDLE", 200, (("collection", "docs"),))
    assert (search.operation, search.status, search.error) == ("search", 502, "engine_failed")


async def test_call_over_a_handle_that_cannot_be_written_down_is_not_done() -> None:
    log = Broken()
    with pytest.raises(StoreUnavailable):
        async with handle_call(log, "index", is_change=True):
            pytest.fail("it was begun")
    assert [one.status for one in log.recorded] == [503]


async def test_records_that_were_dropped_show_in_the_metrics(
    build: Build, metrics: Metrics
) -> None:
    log = Broken()
    build(audit=log)
    assert b"ragserve_audit_dropped 0.0" in metrics.text()
    log.num_dropped = 3
    assert b"ragserve_audit_dropped 3.0" in metrics.text()


async def test_foreign_key_leaves_what_a_missing_one_does(
    audited: httpx.AsyncClient, log: AuditLog
) -> None:
    body = {"name": "x", "tenant": "acme"}
    made = (await audited.post("/v1/keys", json=body, headers=OPERATOR)).json()
    own = {"authorization": f"Bearer {KEY}-with-admin"}
    for key_id in (made["id"], f"key_{'0' * 32}"):
        assert (await audited.get(f"/v1/keys/{key_id}", headers=own)).status_code == 404
    found = [one.record for one in await records(log, num=3)]
    assert found[0].touched == (("key", made["id"]),)
    assert [(one.touched, one.error) for one in found[1:]] == [((), "not_found")] * 2
