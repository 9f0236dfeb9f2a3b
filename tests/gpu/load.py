"""A load on the first GPU, in a process of its own: `load.py full|bursts SECONDS`.

`full` multiplies large matrices without a pause; `bursts` does so for 80 ms of every second.
Prints `ready` when the GPU works. Exits with 77 where torch or its GPU is missing.
"""

from __future__ import annotations

import sys
import time


def main(kind: str, seconds: float) -> int:
    try:
        import torch
    except ImportError:
        return 77
    if not torch.cuda.is_available():
        return 77
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    b = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    torch.matmul(a, b)
    torch.cuda.synchronize()
    print("ready", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        burst_end = time.monotonic() + (0.08 if kind == "bursts" else 1.0)
        while time.monotonic() < burst_end:
            torch.matmul(a, b)
            torch.cuda.synchronize()
        if kind == "bursts":
            time.sleep(0.92)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
