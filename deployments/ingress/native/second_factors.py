"""`/v1/totp`: the second factor of the key that asks."""

import io

import segno
from fastapi import APIRouter, Request, Response

from deployments.ingress.access import guarded
from deployments.ingress.auth import Key
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.second_factors import ConfirmFactor, FactorEnrolment, FactorInfo
from deployments.ingress.services import Services, json_response

PATH = "/v1/totp"


def second_factors_router(services: Services) -> APIRouter:
    """Return the routes that enrol, confirm, show and remove a second factor."""
    router = guarded(tags=["Keys"])
    factors = services.second_factor.factors

    @router.post(
        f"{PATH}/enroll",
        **describe("enrollTotp", None, FactorEnrolment, errors=(409,), status=201),
    )
    async def enroll(request: Request) -> Response:
        """Give this key a second factor (TOTP): scan the code, then confirm it.

        The secret and the recovery codes are in this answer and nowhere else.
        """
        key: Key = request.state.key
        made = await factors.enrol(key.id, key.id)
        answer = FactorEnrolment(
            object="totp.enrolment",
            uri=made.uri,
            secret=made.secret,
            qr_svg=qr_svg(made.uri),
            recovery_codes=list(made.recovery_codes),
        )
        return json_response(answer.model_dump(), 201)

    @router.post(
        f"{PATH}/confirm", **describe("confirmTotp", ConfirmFactor, FactorInfo, errors=(403, 429))
    )
    async def confirm(request: Request) -> Response:
        """Show by a first code that the authenticator has the secret: from now on it counts."""
        body = await services.read(request, ConfirmFactor)
        key: Key = request.state.key
        await factors.confirm(key.id, body.code)
        return _info(is_enrolled=True)

    @router.get(PATH, **describe("getTotp", None, FactorInfo))
    async def get(request: Request) -> Response:
        """Return whether this key has a second factor."""
        key: Key = request.state.key
        return _info(is_enrolled=await factors.is_enrolled(key.id))

    @router.delete(PATH, **describe("removeTotp", None, FactorInfo, errors=(403, 404, 429)))
    async def remove(request: Request) -> Response:
        """Take this key's second factor away; a code of it, or for recovery, comes with this."""
        key: Key = request.state.key
        await services.second_factor.pass_(request)
        await factors.remove(key.id)
        return _info(is_enrolled=False)

    return router


def qr_svg(uri: str) -> str:
    """Return a QR code as an SVG image."""
    image = io.BytesIO()
    segno.make(uri, error="m").save(image, kind="svg", scale=4, xmldecl=False)
    return image.getvalue().decode()


def _info(*, is_enrolled: bool) -> Response:
    return json_response(FactorInfo(object="totp", enrolled=is_enrolled).model_dump())
