"""Pages of lists in OpenAI's form."""

from typing import Any

from starlette.responses import Response

from deployments.ingress.services import json_response


def page_of(found: list[dict[str, Any]], limit: int) -> Response:
    """Return a page, of one more than it has room for where there are more."""
    page = found[:limit]
    listed = {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(found) > limit,
    }
    return json_response(listed)
