"""A libnvidia-ml.so.1 whose true energy is known, for tests and the benchmark."""

from nvml_stub.nvml_stub import GpuStub, MigStub, Stats, Stub, StubConfig, build, constant, square

__all__ = ["GpuStub", "MigStub", "Stats", "Stub", "StubConfig", "build", "constant", "square"]
