"""What this machine offers: the processors this process may use, and the device that computes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path
from typing import Any

from datagen.errors import ResourceError, UsageError

DRIVERS = ("nvidiactl", "nvhost-ctrl", "nvmap", "dxg", "kfd")
"""devices of NVIDIA's driver, its Tegra and WSL forms, and of AMD's; without any of them torch need not be asked"""
KEPT = {-3: 32 << 20, -1: 512 << 20, -2: 64 << 20}
"""of mallopt: M_MMAP_THRESHOLD, its largest value; M_TRIM_THRESHOLD; M_TOP_PAD; bytes"""
NONE, AUTO = "no {} device was found", "--device auto takes the CPU where there is no GPU"


def processors() -> int:
    """Return how many processors this process may use: its affinity, and the quota of its control group (container)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            count = min(count, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return max(1, count)


def moved(tensor: Any, device: Any) -> Any:
    """Return a tensor on a device; CUDA alone copies while the processor goes on, as Apple's GPUs would read memory that is in other use by then."""
    return tensor.to(device, non_blocking=str(device).startswith("cuda"))


def device(wanted: str, *, deterministic: bool = False) -> str:
    """Return "cpu", "cuda" or "mps" for auto or a device's name.

    Args:
        wanted: "auto" or a device's name.
        deterministic: whether equal calls are to give equal bits; matrix products on a GPU must be told so before the first one.

    Raises:
        ResourceError: the device asked for is not there; only auto may fall back on the CPU.
    """
    if wanted == "cpu":
        return "cpu"
    if deterministic and wanted == "mps":
        raise UsageError("torch has no deterministic steps on it", where="--deterministic with --device mps", hint="leave one of them out")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    driverless = sys.platform == "linux" and not any(os.path.exists(f"/dev/{name}") for name in DRIVERS)
    if wanted == "auto" and driverless:
        return "cpu"
    if wanted == "cuda" and driverless:
        raise ResourceError(NONE.format("cuda"), where="--device", hint=AUTO)
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if not there.get(wanted):
        raise ResourceError(NONE.format(wanted), where="--device", hint=AUTO)
    return wanted


def half() -> str:
    """Return the names of the processor's half-precision (bf16) instructions, "" where it has none or does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    flags = next((line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))), [])
    return " ".join(sorted(flag for flag in flags if "bf16" in flag))


def take_gpu(device: str) -> None:
    """Of several GPUs compute on the one that LOCAL_RANK says, counted around; torchrun sets it, and so does each worker process."""
    if device == "cuda":
        import torch

        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def keep_memory() -> None:
    """Let the GNU C library keep what one training step frees and the next asks for, up to 512 MB, in place of giving it back to the system.

    Large blocks go back at once otherwise, and the system clears each page again when it is touched next. Other C libraries stay as they are.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            for parameter, value in KEPT.items():
                library.mallopt(parameter, value)
