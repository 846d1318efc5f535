"""How work is done that outlives its request."""

from ipaddress import ip_network

from pydantic import Field, field_validator

from deployments.config.base import Args


class WebhookArgs(Args):
    """Where webhooks may go besides hosts of the public network, over HTTPS."""

    allow_http: bool = Field(default=False, description="whether messages may go unencrypted")
    networks: tuple[str, ...] = Field(
        default=(), description="in CIDR notation, that are not public and may be told all the same"
    )

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for one in networks:
            ip_network(one)
        return networks


class TasksArgs(Args):
    """How work is done that outlives its request."""

    max_running: int = Field(default=32, ge=1, le=1024, description="tasks at once, of each worker")
    max_waiting: int = Field(
        default=10_000, ge=1, le=1_000_000, description="tasks of a tenant that have not ended"
    )
    kept_s: float = Field(default=86_400, ge=1, description="for a result, where nobody says")
    max_kept_s: float = Field(default=7 * 86_400, ge=1, le=366 * 86_400)
    max_batch: int = Field(
        default=1000, ge=1, le=10_000, description="requests of one `/v1/inference/batch`"
    )
    batch_at_once: int = Field(default=16, ge=1, le=256, description="of those, at the same time")
    large_index_bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=1024,
        description="of a body of `/v1/data/index`; from there on it is done as a task",
    )
    webhooks: WebhookArgs = WebhookArgs()


class BatchesArgs(Args):
    """How much may be kept in files, and how batches of them are done.

    A file comes in one request, so it is bounded by `max_body_bytes`, too.
    """

    concurrency: int = Field(
        default=64, ge=1, le=1024, description="lines of a batch at once, where there is room"
    )
    max_lines: int = Field(default=50_000, ge=1, le=1_000_000, description="of a batch")
    max_line_bytes: int = Field(default=1024 * 1024, ge=1024, description="of a batch's input")
    max_under_way: int = Field(
        default=32, ge=1, description="batches of a tenant that have not ended"
    )
    max_file_bytes: int = Field(default=200 * 1024 * 1024, ge=1)
    max_files: int = Field(default=1000, ge=1, description="of a tenant")
    max_total_bytes: int = Field(
        default=2 * 1024 * 1024 * 1024, ge=1, description="of all files of a tenant"
    )
    kept_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="for inputs and outputs of batches, where nobody says; other files stay",
    )
