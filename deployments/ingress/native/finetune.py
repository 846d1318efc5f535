"""`/v1/models/finetune`: adapters are trained from examples, and become versions to load.

For keys that concern the whole installation. It does not know how a model is trained.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.datastructures import FormData

from deployments.ingress.access import guarded
from deployments.ingress.json_body import parse, validated
from deployments.ingress.native.files import files_of, read_body
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.stored import Deleted
from deployments.ingress.schemas.tuning_states import TuningInfo, TuningList, tuning_of
from deployments.ingress.schemas.tunings import FinetuneModel
from deployments.ingress.services import Services, json_response
from deployments.stores.content import invalid
from deployments.types import TuningState

PATH = "/v1/models/finetune"
FORM_FIELDS = frozenset({"order"})
ENDED = ("completed", "failed", "cancelled")

TuningId = Annotated[str, Path(pattern=r"^tun_[0-9a-f]{32}$")]
After = Annotated[
    str, Query(pattern=r"^(tun_[0-9a-f]{32})?$", description="id of the last one seen")
]
Limit = Annotated[int, Query(ge=1, le=1000)]


def finetune_router(services: Services) -> APIRouter:
    """Return the routes that begin, show and cancel tunings."""
    router = guarded(tags=["Models"])
    described = describe(
        "finetuneModel",
        FinetuneModel,
        TuningInfo,
        errors=(409, 422, 429, 502, 507),
        is_long=True,
    )

    @router.post(PATH, **described)
    async def finetune(request: Request) -> Response:
        """Train a LoRA adapter; all is checked before it answers, every line with its number.

        Also as `multipart/form-data` with the field `file` (JSON Lines) and `order` (the rest, as
        JSON). One tuning runs at a time, a few wait. When it is `completed`, its version was
        evaluated on held-back examples: load it by its `source`, then switch to it.
        """
        graph = services.graph_of(request)
        body = await read_body(services, request, FinetuneModel, _from_form)
        order = body.order()
        await services.second_factor.pass_(request)
        return _answer(await graph.begin_tuning(order))

    @router.get(PATH, **describe("listTunings", None, TuningList))
    async def list_tunings(request: Request, limit: Limit = 20, after: After = "") -> Response:
        """List tunings, the newest first."""
        graph = services.graph_of(request)
        found = await graph.tunings(limit=limit + 1, after=after)
        page = [tuning_of(one).model_dump() for one in found[:limit]]
        return json_response({"object": "list", "data": page, "has_more": len(found) > limit})

    @router.get(f"{PATH}/{{tuning_id}}", **describe("getTuning", None, TuningInfo, errors=(404,)))
    async def get_tuning(request: Request, tuning_id: TuningId) -> Response:
        """Return how far a tuning is, with its loss curve."""
        graph = services.graph_of(request)
        return json_response(tuning_of(await graph.tuning(tuning_id)).model_dump())

    @router.delete(
        f"{PATH}/{{tuning_id}}", **describe("deleteTuning", None, Deleted, errors=(404, 409))
    )
    async def delete(request: Request, tuning_id: TuningId) -> Response:
        """Remove a tuning that has ended, and the version that it made, from the disk.

        409 while a model that is loaded, or another tuning, uses the version.
        """
        graph = services.graph_of(request)
        await services.second_factor.pass_(request)
        await graph.delete_tuning(tuning_id)
        return json_response({"id": tuning_id, "deleted": True})

    @router.post(
        f"{PATH}/{{tuning_id}}/cancel",
        **describe("cancelTuning", None, TuningInfo, errors=(404,), is_long=True),
    )
    async def cancel(request: Request, tuning_id: TuningId) -> Response:
        """Have a tuning end, and its examples and checkpoints go; 202: its workers still run."""
        graph = services.graph_of(request)
        return _answer(await graph.cancel_tuning(tuning_id))

    return router


async def _from_form(form: FormData, max_depth: int) -> FinetuneModel:
    files = await files_of(form, FORM_FIELDS)
    if len(files) != 1:
        raise invalid("a form has one file of examples", "file")
    order: Any = form.get("order")
    fields = parse(order.encode(), max_depth) if isinstance(order, str) else {}
    if not isinstance(fields, dict):
        raise invalid("`order` is no object", "order")
    return validated({**fields, "file": files[0]}, FinetuneModel)


def _answer(state: TuningState) -> Response:
    status = 200 if state.phase in ENDED else 202
    return json_response(tuning_of(state).model_dump(), status)
