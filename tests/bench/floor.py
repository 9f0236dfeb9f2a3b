"""The floor: the smallest exporter of GPU energy that one would write by hand, in 20 lines."""

import sys
import time

import pynvml
from prometheus_client import Counter, start_http_server

start_http_server(int(sys.argv[1]), addr="127.0.0.1")
energy = Counter("gpu_energy_joules", "Energy of the GPU.", ["gpu"])
pynvml.nvmlInit()
handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
counters = [energy.labels(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
last = [pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles]
while True:
    time.sleep(1)
    for i, handle in enumerate(handles):
        now = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        counters[i].inc((now - last[i]) / 1000)
        last[i] = now
