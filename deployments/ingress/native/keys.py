"""`/v1/keys`: who may call.

A key that is no admin's manages those of its own tenant, and gives no more away than it has.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from deployments.errors import Forbidden, NotFound
from deployments.ingress.access import guarded
from deployments.ingress.auth import Key
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.keys import (
    CreateKey,
    KeyInfo,
    KeyList,
    NewKey,
    RotateKey,
    key_of,
)
from deployments.ingress.services import Services, json_response
from deployments.stores.key_rows import Key as StoredKey
from deployments.types.access import ALL

PATH = "/v1/keys"
KeyId = Annotated[str, Path(pattern=r"^key_[0-9a-f]{32}$")]
After = Annotated[
    str, Query(pattern=r"^(key_[0-9a-f]{32})?$", description="id of the last one seen")
]
Limit = Annotated[int, Query(ge=1, le=1000)]


def keys_router(services: Services) -> APIRouter:
    """Return the routes that make, show, replace and revoke keys."""
    router = guarded(tags=["Keys"])

    @router.post(PATH, **describe("createKey", CreateKey, NewKey, status=201))
    async def create(request: Request) -> Response:
        """Make a key; its secret is in this answer and nowhere else."""
        body = await services.read(request, CreateKey)
        caller: Key = request.state.key
        tenant = body.tenant or caller.tenant
        grants = ALL if body.admin else body.grants()
        if not caller.is_admin and (body.admin or tenant != caller.tenant):
            raise Forbidden("only an admin's key makes admins, or keys of other tenants")
        if not caller.is_admin and not grants.within(caller.grants):
            raise Forbidden("a key gives no more away than it covers itself")
        await services.second_factor.pass_(request)
        made = await services.keys.create(
            body.name,
            is_admin=body.admin,
            tenant=tenant,
            grants=grants,
            expires_at=body.expires_at,
        )
        return json_response(_new(*made), 201)

    @router.get(PATH, **describe("listKeys", None, KeyList))
    async def list_keys(request: Request, limit: Limit = 100, after: After = "") -> Response:
        """List keys, revoked ones too, the oldest first."""
        caller: Key = request.state.key
        tenant = None if caller.is_admin else caller.tenant
        found = await services.keys.page(tenant, limit=limit + 1, after=after)
        page = [key_of(key).model_dump() for key in found[:limit]]
        return json_response({"object": "list", "data": page, "has_more": len(found) > limit})

    @router.get(f"{PATH}/{{key_id}}", **describe("getKey", None, KeyInfo, errors=(404,)))
    async def get_key(request: Request, key_id: KeyId) -> Response:
        """Return a key without its secret."""
        return json_response(key_of(await _own(services, request, key_id)).model_dump())

    @router.post(
        f"{PATH}/{{key_id}}/rotate",
        **describe("rotateKey", RotateKey, NewKey, errors=(404, 409), status=201),
    )
    async def rotate(request: Request, key_id: KeyId) -> Response:
        """Make a key that covers the same; the old one works for `overlap_s` more seconds."""
        body = await services.read(request, RotateKey)
        await _own(services, request, key_id)
        await services.second_factor.pass_(request)
        made = await services.keys.rotate(key_id, overlap_s=body.overlap_s)
        return json_response(_new(*made), 201)

    @router.delete(f"{PATH}/{{key_id}}", **describe("revokeKey", None, KeyInfo, errors=(404, 409)))
    async def revoke(request: Request, key_id: KeyId) -> Response:
        """Revoke a key for good; every replica refuses it within a second."""
        await _own(services, request, key_id)
        await services.second_factor.pass_(request)
        return json_response(key_of(await services.keys.revoke(key_id)).model_dump())

    return router


async def _own(services: Services, request: Request, key_id: str) -> StoredKey:
    """Return a key that the caller may manage.

    Raises:
        NotFound: there is none: a foreign tenant's is none.
        Forbidden: it covers more than the caller's.
    """
    caller: Key = request.state.key
    found = await services.keys.get(key_id)
    if caller.is_admin:
        return found
    if found.tenant != caller.tenant:
        raise NotFound("there is no key with this id")
    if found.is_admin or not found.grants.within(caller.grants):
        raise Forbidden("the key covers more than the one that came with the request")
    return found


def _new(key: StoredKey, bearer: str) -> dict[str, Any]:
    return NewKey(**key_of(key).model_dump(), key=bearer).model_dump()
