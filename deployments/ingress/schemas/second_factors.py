"""Second factors, as they are enrolled."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.ingress.schemas.base import Schema


class ConfirmFactor(Schema):
    """`POST /v1/totp/confirm`: a first code shows that the authenticator has the secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "123456"}]})

    code: str = Field(pattern=r"^[0-9]{6}$")


class FactorEnrolment(BaseModel):
    """What an authenticator is given; shown once. It counts once it is confirmed."""

    object: Literal["totp.enrolment"]
    uri: str
    secret: str
    qr_svg: str
    recovery_codes: list[str]


class FactorInfo(BaseModel):
    """Whether the key that asks has a second factor."""

    object: Literal["totp"]
    enrolled: bool
