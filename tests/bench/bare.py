"""A Serve application of three handle hops and nothing else: the peer of the graph."""

from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

HOPS = ("Hop1", "Hop2", "Hop3")


class Hop:
    """Returns what it is given."""

    async def echo(self, value: str) -> str:
        return value


@serve.ingress()
class Bare:
    """An ingress that awaits three hops, one after another."""

    async def __init__(self, first: Any, second: Any, third: Any) -> None:
        self._hops: tuple[DeploymentHandle[Any], ...] = (first, second, third)

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = FastAPI()

        @app.post("/hops")
        async def hops(body: dict[str, str]) -> dict[str, str]:
            value = body["value"]
            for hop in self._hops:
                value = await hop.echo.remote(value)
            return {"value": value}

        return app


def build(args: dict[str, Any]) -> Application:
    """Compose the three hops; Serve passes `args` of the YAML, which are none."""
    assert not args
    hops = [serve.deployment(Hop, name=name).bind() for name in HOPS]
    return serve.deployment(Bare, name="Bare").bind(*hops)
