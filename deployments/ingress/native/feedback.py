"""`/v1/models/feedback`: what people thought of answers."""

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from deployments.ingress.access import guarded
from deployments.ingress.entry import touch
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.feedback import GiveFeedback
from deployments.ingress.schemas.feedback_states import FeedbackInfo, FeedbackList, feedback_of
from deployments.ingress.services import Services, json_response
from deployments.stores.ids import new_id
from deployments.types.feedback import Feedback

PATH = "/v1/models/feedback"

After = Annotated[
    str, Query(pattern=r"^(fbk_[0-9a-f]{32})?$", description="id of the last one seen")
]
Limit = Annotated[int, Query(ge=1, le=1000)]
RequestId = Annotated[str, Query(pattern=r"^[0-9A-Za-z_-]{0,64}$", description="of the answer")]


def feedback_router(services: Services) -> APIRouter:
    """Return the routes of feedback."""
    router = guarded(tags=["Models"])
    described = describe("giveFeedback", GiveFeedback, FeedbackInfo)

    @router.post(PATH, **described)
    async def give_feedback(request: Request) -> Response:
        """Say what an answer was worth; of one key's on the same answer, the last one counts."""
        body = await services.read(request, GiveFeedback)
        given = Feedback(
            id=new_id("fbk"),
            tenant=request.state.key.tenant,
            key_id=request.state.key.id,
            request_id=body.request_id,
            rating=body.rating,
            scale=body.meant,
            created_at=time.time(),
            comment=body.comment,
            corrected_output=body.corrected_output,
            subject=body.subject or "",
        )
        await asyncio.to_thread(services.feedback.put, given)
        touch("feedback", given.id)
        return json_response(feedback_of(given).model_dump())

    @router.get(PATH, **describe("listFeedback", None, FeedbackList))
    async def list_feedback(
        request: Request, limit: Limit = 20, after: After = "", request_id: RequestId = ""
    ) -> Response:
        """List the tenant's feedback, the newest first."""
        found = await asyncio.to_thread(
            services.feedback.find,
            request.state.key.tenant,
            limit=limit + 1,
            before=after,
            request_id=request_id,
        )
        page = [feedback_of(one).model_dump() for one in found[:limit]]
        return json_response({"object": "list", "data": page, "has_more": len(found) > limit})

    return router
