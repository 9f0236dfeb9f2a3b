"""What to do about each NVML error code, and the words for it.

Codes and their meaning: nvml.h, nvmlReturn_t. Codes that are not listed are treated as UNKNOWN.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

from wattledger.errors import MeterUnavailable
from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import NvmlDriver
from wattledger.model import Fault

METER = "nvml"
RETRY_ABSENT_S = 60.0


class Remedy(Enum):
    """How the meter answers an error."""

    WAIT = auto()  # no library, no driver: run without GPUs, look again later
    RESTART = auto()  # the process holds an outdated library: only a new process helps
    LOST = auto()  # this GPU has gone: resolve it anew by its UUID
    UNSUPPORTED = auto()  # never on this GPU: remember that, take the next estimator
    FORBIDDEN = auto()  # this GPU is another's: skip it and say so
    EMPTY = auto()  # nothing there: no processes, no samples
    REOPEN = auto()  # somebody shut NVML down: initialise it again at once
    RETRY = auto()  # may pass; after some times shut down, wait and initialise again


_REMEDIES = {
    nvml.UNINITIALIZED: Remedy.REOPEN,
    nvml.INVALID_ARGUMENT: Remedy.UNSUPPORTED,  # a field or a scope this driver does not know
    nvml.NOT_SUPPORTED: Remedy.UNSUPPORTED,
    nvml.FUNCTION_NOT_FOUND: Remedy.UNSUPPORTED,
    nvml.NO_PERMISSION: Remedy.FORBIDDEN,
    nvml.NOT_FOUND: Remedy.EMPTY,
    nvml.DRIVER_NOT_LOADED: Remedy.WAIT,
    nvml.LIBRARY_NOT_FOUND: Remedy.WAIT,
    nvml.GPU_IS_LOST: Remedy.LOST,
    nvml.RESET_REQUIRED: Remedy.LOST,
    nvml.GPU_NOT_FOUND: Remedy.LOST,
    nvml.LIB_RM_VERSION_MISMATCH: Remedy.RESTART,
}


def remedy(code: int) -> Remedy:
    """What to do about an error code."""
    return _REMEDIES.get(code, Remedy.RETRY)


def optional(driver: NvmlDriver, call: Any, *arguments: Any) -> Any:
    """What a call returns, or None where its failure means that the board does not know it.

    Raises:
        NVMLError: the GPU is lost or NVML is not initialised.
    """
    try:
        return call(*arguments)
    except driver.NVMLError as error:
        if remedy(nvml.error_code(error)) in (Remedy.LOST, Remedy.REOPEN):
            raise
        return None


def init_failed(code: int, backoff_s: float) -> MeterUnavailable:
    """The state of a machine on which NVML cannot be initialised.

    Args:
        code: what nvmlInit answered.
        backoff_s: when to try again, for errors that may pass.
    """
    if code == nvml.LIBRARY_NOT_FOUND:
        return MeterUnavailable(
            "no_library",
            "the NVIDIA management library libnvidia-ml.so.1 is not installed",
            "no NVIDIA GPU here: nothing to do; otherwise install the NVIDIA driver (Debian: "
            "apt install nvidia-driver), in a container start it with --gpus all",
            RETRY_ABSENT_S,
        )
    if code == nvml.DRIVER_NOT_LOADED:
        return MeterUnavailable(
            "no_driver",
            "the NVIDIA kernel driver is not loaded",
            "modprobe nvidia; why it does not load is told by: dmesg | grep -i -e nvidia -e nvrm",
            RETRY_ABSENT_S,
        )
    if code == nvml.LIB_RM_VERSION_MISMATCH:
        return MeterUnavailable(
            "driver_mismatch",
            "the NVIDIA kernel driver and libnvidia-ml.so.1 are of different versions",
            "the driver was upgraded: load the new module (rmmod and modprobe nvidia, or reboot); "
            "a running daemon holds the old library and has to be restarted: "
            "systemctl restart wattledger",
            RETRY_ABSENT_S,
        )
    if code == nvml.NO_PERMISSION:
        return no_permission()
    return driver_error(code, backoff_s)


def no_permission() -> MeterUnavailable:
    """Not one GPU may be opened by this user."""
    return MeterUnavailable(
        "no_permission",
        "no permission on the NVIDIA devices",
        # The shipped unit has DynamicUser: there is no account to be put into a group.
        "ls -l /dev/nvidia* shows the group that may open them, say video; the systemd service "
        "joins it by `systemctl edit wattledger` with the lines [Service] and "
        "SupplementaryGroups=video (a unit of your own also needs DeviceAllow=char-nvidia* rw and "
        'PrivateDevices=no); started by hand: sudo usermod -aG video "$USER", then log in anew',
        RETRY_ABSENT_S,
    )


def no_devices() -> MeterUnavailable:
    """The driver answers but lists nothing."""
    return MeterUnavailable(
        "no_devices",
        "the NVIDIA driver is loaded but lists no GPU",
        "lspci -d 10de: shows whether one is seen on the bus; dmesg | grep -i nvrm tells more",
        RETRY_ABSENT_S,
    )


def all_lost(retry_after_s: float = 10.0) -> MeterUnavailable:
    """Every GPU has fallen off the bus or waits for a reset."""
    return MeterUnavailable(
        "gpu_lost",
        "every GPU is lost",
        "dmesg | grep -i xid tells why; NVML is closed, so that `nvidia-smi --gpu-reset` can go on",
        retry_after_s,
    )


def driver_error(code: int, backoff_s: float) -> MeterUnavailable:
    """NVML answers with errors that may pass."""
    return MeterUnavailable(
        "driver_error",
        f"NVML does not answer: {words(code)}",
        "dmesg | grep -i -e xid -e nvrm tells more; in a container `systemctl daemon-reload` on "
        "the host may have cut its device access: create the container anew",
        backoff_s,
    )


_WORDS = {
    nvml.UNINITIALIZED: "not initialised",
    nvml.INVALID_ARGUMENT: "invalid argument",
    nvml.NOT_SUPPORTED: "not supported",
    nvml.NO_PERMISSION: "no permission",
    nvml.NOT_FOUND: "not found",
    nvml.TIMEOUT: "time-out",
    nvml.FUNCTION_NOT_FOUND: "unknown to this driver",
    nvml.GPU_IS_LOST: "the GPU is lost",
    nvml.RESET_REQUIRED: "the GPU needs a reset",
    nvml.LIB_RM_VERSION_MISMATCH: "driver and library versions differ",
    nvml.GPU_NOT_FOUND: "GPU not found",
    nvml.UNKNOWN: "unknown error",
}


def words(code: int) -> str:
    """An error code for people."""
    return f"{_WORDS.get(code, 'unlisted error')} (NVML {code})"


def gpu_fault(device: str, name: str, code: int) -> Fault:
    """One GPU did not answer.

    Args:
        device: its UUID, empty where it is unknown.
        name: how people know it.
        code: what the driver answered.
    """
    kind = remedy(code)
    if kind is Remedy.LOST:
        reason = "reset_required" if code == nvml.RESET_REQUIRED else "gpu_lost"
        return Fault(
            METER,
            reason,
            f"{name}: {words(code)}",
            "dmesg | grep -i xid tells why; to reset it: wattledger release --for 15m, then "
            "nvidia-smi --gpu-reset, or reboot",
            device,
        )
    if kind is Remedy.FORBIDDEN:
        return Fault(METER, "no_permission", f"{name}: {words(code)}", no_permission().hint, device)
    reason = "unsupported" if kind is Remedy.UNSUPPORTED else "read_failed"
    return Fault(METER, reason, f"{name}: {words(code)}", device=device)
