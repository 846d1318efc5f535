"""`/v1/audit`: who did what, when, from where, and how it ended; and the proof of it."""

import asyncio
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from deployments.errors import Forbidden, NotFound
from deployments.ingress.access import guarded
from deployments.ingress.auth import Key
from deployments.ingress.entry import Audit
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.audit import (
    ID_PATTERN,
    STATUS_PATTERN,
    AuditPage,
    AuditProof,
    entry_of,
    filter_of,
    id_of,
    position_of,
    proof_of,
)
from deployments.ingress.services import Services, json_response

PATH = "/v1/audit"
Time = Annotated[str, Query(max_length=64, description="ISO 8601 with its offset")]
Name = Annotated[str, Query(max_length=64)]
Status = Annotated[
    str, Query(pattern=STATUS_PATTERN, description="such as `404` or `4xx`; `intent`: what began")
]
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str, Query(pattern=ID_PATTERN, description="`next` of the page before")]


def audit_router(services: Services) -> APIRouter:
    """Return the routes that show and prove the audit log."""
    router = guarded(tags=["Audit"])

    @router.get(f"{PATH}/logs", **describe("listAudit", None, AuditPage, errors=(404,)))
    async def logs(
        request: Request,
        since: Time = "",
        until: Time = "",
        tenant: Name = "",
        key: Name = "",
        operation: Name = "",
        status: Status = "",
        limit: Limit = 100,
        after: After = "",
    ) -> Response:
        """List calls, the newest first; a key that is no admin's sees those of its tenant.

        Every call is here, allowed, refused or failed: after a second, and what changes something
        before it is answered. No prompt, answer or key is.
        """
        log = _log(services)
        wanted = filter_of(
            since=since, until=until, tenant=tenant, key=key, operation=operation, status=status
        )
        caller: Key = request.state.key
        if not caller.is_admin:
            if tenant not in ("", caller.tenant):
                raise Forbidden("only an admin's key sees other tenants")
            wanted = replace(wanted, tenant=caller.tenant)
        found = await asyncio.to_thread(log.page, wanted, limit=limit + 1, after=position_of(after))
        page, has_more = found[:limit], len(found) > limit
        return json_response(
            {
                "object": "list",
                "data": [entry_of(one).model_dump() for one in page],
                "has_more": has_more,
                "next": id_of(page[-1].position) if has_more else None,
            }
        )

    @router.get(f"{PATH}/verify", **describe("verifyAudit", None, AuditProof, errors=(404,)))
    async def verify(request: Request) -> Response:
        """Read the whole log and say where it was edited first; of admins only, one at a time.

        It reads some 50,000 records a second, so a large log is better proved by
        `ragserve audit verify`, which has no deadline.
        """
        log = _log(services)
        if not request.state.key.is_admin:
            raise Forbidden("the log is of all tenants, so only an admin's key may prove it")
        return json_response(proof_of(await asyncio.to_thread(log.verify_apart)).model_dump())

    return router


def _log(services: Services) -> Audit:
    if services.audit is None:
        raise NotFound("no audit log is kept here")
    return services.audit
