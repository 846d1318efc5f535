from types import SimpleNamespace

from deployments.types import GpuVitals
from deployments.vitals import gpu_vitals, node_vitals, replica_vitals


class NvmlError(Exception):
    pass


class FakeNvml:
    """Two GPUs; the second may be lost."""

    NVMLError = NvmlError

    def __init__(self, is_lost: bool = False) -> None:
        self.is_lost = is_lost

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if self.is_lost and index == 1:
            raise NvmlError
        return index

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> SimpleNamespace:
        return SimpleNamespace(used=10 + gpu, total=100)

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=50)

    def nvmlDeviceGetName(self, gpu: int) -> bytes | str:
        return b"old" if gpu else "new"


def test_gpus_are_those_that_nvml_tells() -> None:
    both = (GpuVitals(0, "new", 0.5, 10, 100), GpuVitals(1, "old", 0.5, 11, 100))
    assert gpu_vitals(FakeNvml()) == both
    assert gpu_vitals(FakeNvml(is_lost=True)) == both[:1]
    assert gpu_vitals(None) == ()


def test_replica_tells_of_its_process_and_machine() -> None:
    vitals = replica_vitals(num_running=3, kv_cache_usage=0.5)
    assert vitals.memory_bytes > 10 << 20
    assert (vitals.num_running, vitals.kv_cache_usage) == (3, 0.5)
    node = node_vitals()
    assert 0 <= node.cpu <= 1
    assert 0 < node.memory_used_bytes < node.memory_total_bytes
    assert vitals.node.host == node.host
