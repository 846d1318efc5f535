"""A Serve application without models, for the tests of what surrounds an application."""

from ray import serve
from starlette.requests import Request


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Tiny:
    async def __call__(self, request: Request) -> dict[str, str]:
        return {"path": request.url.path}


def build(args: dict[str, str]) -> serve.Application:
    return Tiny.bind()
