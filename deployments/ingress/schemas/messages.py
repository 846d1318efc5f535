"""The turns of a chat, in the shapes that OpenAI clients send them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from deployments.ingress.schemas.base import (
    MAX_TEXT_CHARS,
    Schema,
    Unsupported,
    one_or_many,
)
from deployments.types import Message, Role

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


class TextPart(Schema):
    """A piece of text; parts are joined as they are."""

    type: Literal["text"]
    text: Text


def _only_text_parts(value: Any) -> Any:
    parts = value if isinstance(value, list) else []
    if any(isinstance(part, dict) and part.get("type") not in ("text", None) for part in parts):
        message = "only content parts of type `text` are supported"
        raise PydanticCustomError("unsupported", message)
    return value


Parts = Annotated[list[TextPart], Field(min_length=1, max_length=256)]
Content = Annotated[
    Annotated[Text, Tag("one")] | Annotated[Parts, Tag("many")],
    Discriminator(one_or_many),
    BeforeValidator(_only_text_parts),
]


class ChatMessage(Schema):
    """One turn: `developer` is another name of `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: Unsupported = None
    tool_calls: Unsupported = None
    tool_call_id: Unsupported = None
    function_call: Unsupported = None
    refusal: Unsupported = None
    audio: Unsupported = None
    annotations: Unsupported = None
    reasoning_content: Unsupported = None

    def message(self) -> Message:
        """Return the engine's form."""
        role: Role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return Message(role, self.content)
        return Message(role, "".join(part.text for part in self.content))


Messages = Annotated[list[ChatMessage], Field(min_length=1, max_length=1024)]
