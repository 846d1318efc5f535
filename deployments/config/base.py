"""What all configuration has in common."""

from pydantic import BaseModel, ConfigDict


class Args(BaseModel):
    """Base of everything read from YAML: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
