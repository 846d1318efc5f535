"""An application that cannot start, for the tests of what `up` says then."""

from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Broken:
    def __init__(self) -> None:
        raise ValueError("the weights are made of cheese")

    async def __call__(self) -> str:
        return "never"


def build(args: dict[str, str]) -> serve.Application:
    return Broken.bind()
