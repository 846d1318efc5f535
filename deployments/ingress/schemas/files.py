"""A file within a JSON body."""

from pydantic import Field

from deployments.ingress.schemas.base import Schema


class File(Schema):
    """A file as it is; its name tells the kind where its content does not."""

    filename: str = Field(pattern=r"^[^\x00-\x1f]{1,255}$", examples=["guide.pdf"])
    content_base64: str
