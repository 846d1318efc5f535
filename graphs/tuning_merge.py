"""Merged weights are written by a process of its own, which has loaded nothing else."""

import asyncio
from pathlib import Path

import ray
from ray.exceptions import RayError, RayTaskError

from deployments.config import TuningArgs
from deployments.errors import EngineFailed, RagError
from deployments.types import TuningSpec


def _merge(spec: TuningSpec, adapter: Path, folder: Path) -> None:
    from deployments.tuning.adapter import merge

    merge(spec, adapter, folder)


async def merge_apart(spec: TuningSpec, adapter: Path, folder: Path, args: TuningArgs) -> None:
    """Write the base with the adapter in its weights; raises EngineFailed.

    The process ends when this is cancelled, and with the one that asked.
    """
    task = ray.remote(max_calls=1)(_merge).options(
        num_cpus=args.worker_cpus, memory=spec.memory_bytes or None, max_retries=0
    )
    reference = task.remote(spec, adapter, folder)
    try:
        async with asyncio.timeout(args.start_timeout_s + args.step_timeout_s):
            await reference
    except TimeoutError:
        raise EngineFailed("the merged weights were not written in time") from None
    except RagError as error:
        raise EngineFailed(error.message) from error
    except RayTaskError as error:
        raise EngineFailed(f"{type(error.cause).__name__} while merging") from error
    except RayError as error:
        raise EngineFailed("the process that merges has died") from error
    finally:
        ray.cancel(reference, force=True)
