"""Keys, as they are made and shown; a secret is shown once."""

import dataclasses
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.ingress.schemas.base import CollectionName, ModelId, Schema
from deployments.stores.grants import MAX_LIMIT, MAX_NAMES
from deployments.stores.key_rows import Key
from deployments.stores.keys import DEFAULT_OVERLAP_S, MAX_NAME_LENGTH, MAX_OVERLAP_S
from deployments.types.access import ALL, DEFAULT_SCOPES, Grants, Limits, Scope

Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]
Address = Annotated[str, Field(min_length=1, max_length=64, examples=["203.0.113.0/24"])]
Collections = Annotated[list[CollectionName], Field(min_length=1, max_length=MAX_NAMES)]
EVERY = "null: every one"


class KeyLimits(Schema):
    """How much a key may ask; null: no limit of its own."""

    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    tokens_per_day: Limit | None = Field(default=None, description="of the day in UTC")
    max_concurrent: Limit | None = None


class CreateKey(Schema):
    """`POST /v1/keys`: whom a key is for, and what it covers; no more than the caller's own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "dify",
                    "scopes": ["data", "inference"],
                    "collections": ["manuals"],
                    "limits": {"requests_per_minute": 600},
                    "expires_at": "2099-01-01T00:00:00Z",
                }
            ]
        }
    )

    name: str = Field(min_length=1, max_length=MAX_NAME_LENGTH)
    tenant: str | None = Field(
        default=None, min_length=1, max_length=64, description="by default the caller's"
    )
    admin: bool = Field(default=False, description="covers everything; of admins only")
    scopes: Annotated[list[Scope], Field(min_length=1)] = Field(default=list(DEFAULT_SCOPES))
    models: Annotated[list[ModelId], Field(min_length=1, max_length=MAX_NAMES)] | None = Field(
        default=None, description=f"ids and aliases that it may ask; {EVERY}"
    )
    collections: (
        Annotated[list[CollectionName], Field(min_length=1, max_length=MAX_NAMES)] | None
    ) = Field(default=None, description=f"of the tenant's; {EVERY}")
    addresses: Annotated[list[Address], Field(min_length=1, max_length=MAX_NAMES)] | None = Field(
        default=None, description="networks that it works from; null: everywhere"
    )
    limits: KeyLimits = KeyLimits()
    expires_at: str | None = Field(
        default=None, max_length=64, description="a time in ISO 8601 with its offset"
    )

    def grants(self) -> Grants:
        """Return what the key is to cover."""
        return Grants(
            scopes=tuple(self.scopes),
            models=_named(self.models),
            collections=_named(self.collections),
            addresses=_named(self.addresses),
            limits=Limits(**self.limits.model_dump()),
        )


class RotateKey(Schema):
    """`POST /v1/keys/{id}/rotate`: for how long the key that is replaced goes on to work."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_s": 3600}]})

    overlap_s: float = Field(default=DEFAULT_OVERLAP_S, ge=0, le=MAX_OVERLAP_S)


class KeyInfo(BaseModel):
    """A key without its secret."""

    id: str
    object: Literal["key"]
    name: str
    tenant: str
    admin: bool
    scopes: list[Scope]
    models: list[str] | None
    collections: list[str] | None
    addresses: list[str] | None
    limits: KeyLimits
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class NewKey(KeyInfo):
    """A key that was made just now; `key` is never shown again."""

    key: str


class KeyList(BaseModel):
    """Keys, the oldest first."""

    object: Literal["list"]
    data: list[KeyInfo]
    has_more: bool


def key_of(key: Key) -> KeyInfo:
    """Return a key as the API shows it."""
    grants = key.grants
    return KeyInfo(
        id=key.id,
        object="key",
        name=key.name,
        tenant=key.tenant,
        admin=key.is_admin,
        scopes=[scope for scope in ALL.scopes if key.has(scope)],
        models=_listed(grants.models),
        collections=_listed(grants.collections),
        addresses=_listed(grants.addresses),
        limits=KeyLimits(**dataclasses.asdict(grants.limits)),
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
    )


def _named(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _listed(names: tuple[str, ...] | None) -> list[str] | None:
    return None if names is None else list(names)
