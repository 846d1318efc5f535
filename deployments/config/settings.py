"""What a host says through its environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What a host says through its environment (`RAGSERVE_…`)."""

    model_config = SettingsConfigDict(env_prefix="RAGSERVE_", frozen=True)

    state_dir: Path = Path("~/.local/state/ragserve")
    edge_state_dir: Path | None = Field(
        default=None,
        description="state folder of the installation whose edge stands in front of this one; by "
        "default its own",
    )
    http_port: int = Field(default=8080, ge=1, le=65535)
    https_port: int = Field(default=8443, ge=1, le=65535)
    grpc_port: int = Field(default=9000, ge=0, le=65535, description="0: no gRPC at the edge")
    grpc_tls_port: int = Field(default=9443, ge=1, le=65535)
    database_url: str = ""
    redis_url: str = Field(
        default="", description="where limits are counted and answers kept; empty: on each host"
    )
    redis_timeout_s: float = Field(
        default=0.25,
        gt=0,
        le=60,
        description="longest wait of a request for Redis; then each host counts on its own, and "
        "answers are computed",
    )
    broker_url: str = Field(
        default="",
        description="`amqp://` of RabbitMQ or `redis://` of Redis, which tells workers of tasks; "
        "empty: they look at the database themselves",
    )
    transfer_roots: str = Field(
        default="",
        description="folders and `scheme://bucket/prefix` that exports may be written below and "
        "imports read from, separated by commas; each tenant has its own folder in them",
    )

    @property
    def state_path(self) -> Path:
        """Return the state folder as an absolute path."""
        return self.state_dir.expanduser().resolve()

    @property
    def edge_state_path(self) -> Path:
        """Return the state folder of the edge in front as an absolute path."""
        return (self.edge_state_dir or self.state_dir).expanduser().resolve()

    @property
    def database(self) -> str:
        """Return the SQLAlchemy address of the database: SQLite in the state folder by default."""
        return self.database_url or f"sqlite:///{self.state_path / 'ragserve.db'}"
