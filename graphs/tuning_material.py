"""Examples are encoded in a process of their own: an ingress loads no torch and no tokenizer."""

from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray.exceptions import RayError

from deployments.errors import EngineFailed, InvalidRequest, RagError, UnreadableModel
from deployments.types import TuningOrder

if TYPE_CHECKING:
    from deployments.tuning.preparing import Prepared


def _prepare(order: TuningOrder, location: str, path: Path) -> "Prepared":
    from deployments.tuning.preparing import prepare  # loads torch and more, in that process only

    return prepare(order, location, path)


async def prepare_apart(order: TuningOrder, location: str, path: Path) -> "Prepared":
    """Write the material of a tuning in a process of its own; raises as `prepare`."""
    task = ray.remote(_prepare).options(num_cpus=0, max_retries=1)
    try:
        prepared: Prepared = await task.remote(order, location, path)
    except (InvalidRequest, UnreadableModel) as error:
        raise _again(error) from None
    except RayError as error:
        raise EngineFailed("the examples could not be encoded") from error
    return prepared


def _again(error: RagError) -> RagError:
    """Return an error as it was raised: across a process its text would be the traceback."""
    kind = InvalidRequest if not isinstance(error, UnreadableModel) else UnreadableModel
    again = kind(error.message)
    again.param = error.param
    return again
