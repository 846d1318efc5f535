"""The OpenAPI description: request bodies, every error response, the key.

Routes read their bodies themselves (``json_body.py``), so their schemas are put in here.
"""

from typing import Any

from pydantic import BaseModel

REF = "#/components/schemas/{model}"


def describe(operation_id: str, body: type[BaseModel] | None = None) -> dict[str, Any]:
    """Return the keyword arguments that describe a route to FastAPI."""
    extra: dict[str, Any] = {}
    if body is not None:
        schema = {"$ref": REF.format(model=body.__name__)}
        content = {"application/json": {"schema": schema}}
        extra["requestBody"] = {"required": True, "content": content}
    return {"operation_id": operation_id, "openapi_extra": extra, "response_model": None}
