"""What a replica tells of its process and its machine: memory, processors, and GPUs through NVML.

It does not know engines. NVML is asked where its library is installed and finds a driver.
"""

import socket
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import psutil  # type: ignore[import-untyped]

from deployments.types import GpuVitals, NodeVitals, ReplicaVitals

_PROCESS = psutil.Process()


def replica_vitals(
    num_running: int = 0,
    num_queued: int = 0,
    tokens_per_s: float = 0.0,
    kv_cache_usage: float = 0.0,
) -> ReplicaVitals:
    """Return what this process holds, beside what its engine says."""
    return ReplicaVitals(
        pid=_PROCESS.pid,
        memory_bytes=_PROCESS.memory_info().rss,
        node=node_vitals(),
        num_running=num_running,
        num_queued=num_queued,
        tokens_per_s=tokens_per_s,
        kv_cache_usage=kv_cache_usage,
    )


def node_vitals() -> NodeVitals:
    """Return what this machine does; the processors' share is since the last call."""
    memory = psutil.virtual_memory()
    return NodeVitals(
        host=socket.gethostname(),
        num_cpus=psutil.cpu_count() or 1,
        cpu=psutil.cpu_percent() / 100,
        memory_used_bytes=memory.total - memory.available,
        memory_total_bytes=memory.total,
        gpus=gpu_vitals(_nvml()),
    )


def gpu_vitals(nvml: Any) -> tuple[GpuVitals, ...]:
    """Return every GPU of this machine as NVML says, none where there is no NVML."""
    if nvml is None:
        return ()
    gpus = []
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            gpu = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
            rates = nvml.nvmlDeviceGetUtilizationRates(gpu)
            name = nvml.nvmlDeviceGetName(gpu)
            name = name.decode() if isinstance(name, bytes) else name
            gpus.append(GpuVitals(index, name, rates.gpu / 100, memory.used, memory.total))
    except nvml.NVMLError:  # a driver that went away: what was read is still true
        return tuple(gpus)
    return tuple(gpus)


@cache
def _nvml() -> Any:
    """Return NVML's module, started, or None."""
    if find_spec("pynvml") is None:
        return None
    nvml = import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml
