"""Work that outlives its request: put in, looked at, followed, ended; and many requests in one."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from deployments.ingress.access import guarded
from deployments.ingress.auth import Key
from deployments.ingress.entry import touch
from deployments.ingress.json_body import parse, validated
from deployments.ingress.native.webhooks import webhooks_router
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.stored import Deleted
from deployments.ingress.schemas.task_states import BatchResult, TaskInfo, TaskList, task_of
from deployments.ingress.schemas.tasks import AsyncInference, BatchInference
from deployments.ingress.services import Services, json_response
from deployments.ingress.tasks.following import TaskStream, ended
from deployments.ingress.tasks.inner import InnerCalls
from deployments.ingress.tasks.ordering import inference_order
from deployments.ingress.tasks.together import answers_to
from deployments.ingress.webhooks.guard import check_url
from deployments.stores.content import invalid
from deployments.stores.tasks.store import unknown
from deployments.types.tasks import ENDED, TaskState, TaskStatus

MAX_WAIT_S = 60.0

TaskId = Annotated[str, Path(pattern=r"^task_[0-9a-f]{32}$")]
After = Annotated[
    str, Query(pattern=r"^(task_[0-9a-f]{32})?$", description="id of the last one seen")
]
Limit = Annotated[int, Query(ge=1, le=1000)]
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="for its end, in seconds")]
Number = Annotated[int, Query(ge=0, le=2**31 - 1, description="number of the last event seen")]


def tasks_router(services: Services) -> APIRouter:
    """Return the routes of tasks."""
    router = guarded(tags=["Tasks"])
    described = describe("inferAsync", AsyncInference, TaskInfo, status=202)

    @router.post("/v1/inference/async", **described)
    async def infer_async(request: Request) -> Response:
        """Have a request of `POST /v1/inference` done by itself; it is done exactly once.

        What is accepted here is on the disk. What can pass, such as a model that is away or a limit
        that is full, is tried again; look at the task to see what has come of it.
        """
        value = parse(await request.body(), services.args.max_json_depth)
        body = validated(value, AsyncInference)
        if body.webhook is not None:
            check_url(body.webhook, services.args.tasks.webhooks)
        order = inference_order(request.state.key, body, value, services.args.tasks)
        return accepted(await services.tasks.submit(order))

    described = describe("inferBatch", BatchInference, BatchResult, errors=(404, 502))

    @router.post("/v1/inference/batch", **described)
    async def infer_batch(request: Request) -> Response:
        """Answer many requests of `POST /v1/inference` in one call; each fails for itself."""
        body = await services.read(request, BatchInference)
        limits = services.args.tasks
        if len(body.requests) > limits.max_batch:
            raise invalid(f"a batch has at most {limits.max_batch} requests", "requests")
        calls: InnerCalls = request.app.state.calls
        return json_response(
            await answers_to(
                calls,
                request.state.key,
                body.raw_requests,
                at_once=limits.batch_at_once,
                request_id=request.state.request_id,
            )
        )

    @router.get("/v1/tasks", **describe("listTasks", None, TaskList))
    async def list_tasks(
        request: Request,
        limit: Limit = 20,
        after: After = "",
        status: TaskStatus | None = None,
    ) -> Response:
        """List tasks, the newest first."""
        key: Key = request.state.key
        found = await services.tasks.find(
            key.tenant,
            limit=limit + 1,
            before=after,
            status=status,
            key_id=key.id if _sees_own_only(key) else None,
        )
        page = [task_of(one) for one in found[:limit]]
        return json_response({"object": "list", "data": page, "has_more": len(found) > limit})

    @router.get("/v1/tasks/{task_id}", **describe("getTask", None, TaskInfo, errors=(404,)))
    async def get_task(request: Request, task_id: TaskId, wait_s: Wait = 0.0) -> Response:
        """Return how a task is; with `wait_s`, as soon as it has ended, or then."""
        state = await _found(services, request, task_id)
        if wait_s > 0:
            state = await ended(services.tasks, state, wait_s)
        return json_response(task_of(state))

    @router.delete(
        "/v1/tasks/{task_id}",
        **describe("cancelTask", None, TaskInfo, errors=(404,), is_long=True),
    )
    async def cancel_task(request: Request, task_id: TaskId) -> Response:
        """Have a task end: one that runs, within a second (202). One that has ended stays."""
        await _found(services, request, task_id)
        state = await services.tasks.cancel(request.state.key.tenant, task_id)
        return json_response(task_of(state), 200 if state.status in ENDED else 202)

    described = describe("removeTask", None, Deleted, errors=(404, 409))

    @router.delete("/v1/tasks/{task_id}/result", **described)
    async def remove_task(request: Request, task_id: TaskId) -> Response:
        """Remove a task that has ended, with its result, before its time."""
        await _found(services, request, task_id)
        await services.tasks.delete(request.state.key.tenant, task_id)
        return json_response({"id": task_id, "deleted": True})

    described = describe("retryTask", None, TaskInfo, errors=(404, 409), status=202)

    @router.post("/v1/tasks/{task_id}/retry", **described)
    async def retry_task(request: Request, task_id: TaskId) -> Response:
        """Have a task that failed, or was cancelled, done again from its beginning."""
        await _found(services, request, task_id)
        return accepted(await services.tasks.retry(request.state.key.tenant, task_id))

    described = describe("followTask", None, None, is_stream=True, errors=(404,))

    @router.get("/v1/tasks/{task_id}/events", **described)
    async def follow_task(request: Request, task_id: TaskId, after: Number = 0) -> Response:
        """Stream what a task says, from any event on, until it has ended.

        Events are those of a streamed inference, each with its `number`, by which another request
        goes on; `progress` of a task that has parts; `restarted` where another attempt begins from
        the beginning; and one `end`.
        """
        state = await _found(services, request, task_id)
        return TaskStream(
            services.tasks,
            state,
            after,
            heartbeat_s=services.args.heartbeat_s,
            request_id=request.state.request_id,
        )

    router.routes.extend(webhooks_router(services).routes)
    return router


def accepted(state: TaskState) -> Response:
    """Return the answer to whoever has put a task in."""
    touch("task", state.id)
    content: dict[str, Any] = task_of(state)
    response = json_response(content, 202)
    response.headers["location"] = f"/v1/tasks/{state.id}"
    return response


async def _found(services: Services, request: Request, task_id: str) -> TaskState:
    """Return a task that the request's key may see; raises NotFound."""
    key: Key = request.state.key
    state = await services.tasks.get(key.tenant, task_id)
    if state.key_id != key.id and _sees_own_only(key):
        raise unknown()
    touch("task", task_id)
    return state


def _sees_own_only(key: Key) -> bool:
    """Return whether tasks of the tenant's other keys may hold what the key may not reach."""
    return key.grants.models is not None or key.grants.collections is not None
