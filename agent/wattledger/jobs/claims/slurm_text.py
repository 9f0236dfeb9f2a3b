"""What Slurm's hooks write: ids, GPU lists and the job files of `deploy/slurm`, read strictly."""

from __future__ import annotations

import re
from typing import NamedTuple

from wattledger.jobs.claims.records import GpuBy, JobFacts
from wattledger.units import NS_PER_S

JOB_ID = re.compile(r"[0-9]{1,10}", re.ASCII)
FIRST_LINE = "wattledger-job 1"
LAST_LINE = "end"
NAME_CHARS = 128
MAX_GPUS = 256  # on one node, MIG instances counted

_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_GPU_UUID = re.compile(f"GPU-{_UUID}", re.ASCII)
_MIG_UUID = re.compile(f"MIG-{_UUID}", re.ASCII)
# Drivers before 470 named an instance by its parent and its GPU and compute instance ids.
_OLD_MIG = re.compile(rf"MIG-(GPU-{_UUID})/([0-9]{{1,3}})/[0-9]{{1,3}}", re.ASCII)
_NUMBERS = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", re.ASCII)
_SLUID = re.compile(r"s[0-9A-HJKMNP-TV-Z]{13}", re.ASCII)
_PRINTABLE = re.compile(r"[ -~]{0,128}", re.ASCII)
_BOOT_ID = re.compile(_UUID, re.ASCII)
_KEYS = frozenset(
    ("id", "boot", "gpus", "mps", "uid", "start", "restart", "sluid", "user", "account",
     "partition", "cluster", "node")
)  # fmt: skip


class Gpu(NamedTuple):
    """A GPU, or a part of one, by one of its names; see `SourceClaim`."""

    gpu: str
    gpu_by: GpuBy
    mig_uuid: str = ""
    gpu_instance: int | None = None


class JobFile(NamedTuple):
    """What the prolog wrote about one job."""

    job: JobFacts
    boot_id: str
    gpus: tuple[Gpu, ...]
    mps_percent: int


def gpu_of_uuid(text: str) -> Gpu | None:
    """The GPU or MIG instance of this UUID; None: it is not one of NVIDIA's UUIDs."""
    if _GPU_UUID.fullmatch(text):
        return Gpu(text, GpuBy.UUID)
    if _MIG_UUID.fullmatch(text):
        return Gpu("", GpuBy.UUID, text)
    if (old := _OLD_MIG.fullmatch(text)) is not None:
        return Gpu(old[1], GpuBy.UUID, text, int(old[2]))
    return None


def gpus_of(text: str, numbering: GpuBy, order: tuple[str, ...] = ()) -> tuple[Gpu, ...]:
    """The GPUs of `SLURM_JOB_GPUS`: numbers, ranges of them or UUIDs, separated by commas.

    The numbers are those of Slurm's own list of devices (`gres_device->index`, in
    src/plugins/gres/common/gres_common.c); up to Slurm 20.02 the digits that end the device
    file's name. Both are the minor number where gres.conf lists all of /dev/nvidia0 upward.

    Args:
        text: the variable's value.
        numbering: what the numbers mean.
        order: UUIDs in the order of gres.conf, for nodes where the numbers mean nothing else,
            such as those with MIG: number n is the n-th of them.

    Raises:
        ValueError: it is none of these.
    """
    found: dict[Gpu, None] = {}
    for part in text.split(",") if text else ():
        if (named := gpu_of_uuid(part)) is not None:
            found[named] = None
            continue
        if (numbers := _NUMBERS.fullmatch(part)) is None:
            raise ValueError(f"{part[:40]!r} is not a GPU's number or UUID")
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if not first <= last < first + MAX_GPUS:
            raise ValueError(f"{part!r} is not a range of GPU numbers")
        for number in range(first, last + 1):
            if not order:
                found[Gpu(str(number), numbering)] = None
            elif number < len(order) and (known := gpu_of_uuid(order[number])) is not None:
                found[known] = None
            else:
                raise ValueError(f"the configured order of GPUs has no number {number}")
    if len(found) > MAX_GPUS:
        raise ValueError(f"more than {MAX_GPUS} GPUs")
    return tuple(found)


def parse_job_file(name: str, text: str, numbering: GpuBy, order: tuple[str, ...] = ()) -> JobFile:
    """A job file as the prolog of `deploy/slurm` writes it.

    Raises:
        ValueError: it is half-written, or anything in it is not as the prolog would write it.
    """
    values = _values(text)
    job_id = values.get("id", "")
    if not JOB_ID.fullmatch(job_id) or job_id != name:
        raise ValueError(f"its id is {job_id[:20]!r}")
    boot_id = values.get("boot", "")
    if boot_id and not _BOOT_ID.fullmatch(boot_id):
        raise ValueError("its boot id is none")
    sluid = values.get("sluid", "")
    if sluid and not _SLUID.fullmatch(sluid):
        raise ValueError("its SLUID is none")
    uid = _number(values, "uid", 2**32 - 2)
    return JobFile(
        JobFacts(
            "slurm",
            job_id,
            uid=uid,
            user=values.get("user", ""),
            account=values.get("account", ""),
            partition=values.get("partition", ""),
            cluster=values.get("cluster", ""),
            restarts=_number(values, "restart", 2**16) or 0,
            start_ns=(_number(values, "start", 2**33) or 0) * NS_PER_S,
            sluid=sluid,
        ),
        boot_id,
        gpus_of(values.get("gpus", ""), numbering, order),
        _number(values, "mps", 100) or 0,
    )


def parse_name_file(text: str) -> tuple[str, str, str]:
    """Name, array job id and array task id, as the PrologSlurmctld of `deploy/slurm` writes them.

    The name is last and raw: it may hold anything, line feeds and what looks like other lines.

    Raises:
        ValueError: it is half-written or none.
    """
    head, found, tail = text.partition("\nname=")
    if not found or not tail.endswith(f"\n{LAST_LINE}\n"):
        raise ValueError("it is half-written")
    lines = head.split("\n")
    if lines[0] != FIRST_LINE:
        raise ValueError(f"its first line is not {FIRST_LINE!r}")
    values = dict(line.split("=", 1) for line in lines[1:] if "=" in line)
    array_job = values.get("array_job", "")
    array_task = values.get("array_task", "")
    for number in (array_job, array_task):
        if number and not JOB_ID.fullmatch(number):
            raise ValueError("its array ids are no numbers")
    return clean_name(tail[: -len(LAST_LINE) - 2]), array_job, array_task


def clean_name(name: str) -> str:
    """A name chosen by a user, fit for logs and labels: valid Unicode, one line, 128 characters."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    shown = "".join(char if char.isprintable() else " " for char in text[: 4 * NAME_CHARS])
    return " ".join(shown.split())[:NAME_CHARS]


def _values(text: str) -> dict[str, str]:
    """The `key=value` lines between the first and the last line."""
    lines = text.split("\n")
    if lines[0] != FIRST_LINE:
        raise ValueError(f"its first line is not {FIRST_LINE!r}")
    if lines[-2:] != [LAST_LINE, ""]:
        raise ValueError("it is half-written")
    values: dict[str, str] = {}
    for line in lines[1:-2]:
        key, equals, value = line.partition("=")
        if not equals or key in values or not _PRINTABLE.fullmatch(value):
            raise ValueError(f"a line of it is not understood: {line[:40]!r}")
        if key in _KEYS:  # a later version may write more
            values[key] = value
    return values


def _number(values: dict[str, str], key: str, at_most: int) -> int | None:
    text = values.get(key, "")
    if not text:
        return None
    if not JOB_ID.fullmatch(text) or int(text) > at_most:
        raise ValueError(f"its {key} is not a number: {text[:20]!r}")
    return int(text)
