"""Processes under measurement: started, told ready, asked for pages, weighed, ended."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

MIB = 1 << 20
DEPLOY = Path(__file__).parents[2] / "deploy"
LAUNCHER = re.compile(r"^#!\$lib/bin/python3 (\S+)$", re.MULTILINE)
Page = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Process:
    """A program on 127.0.0.1:`port` that this benchmark started."""

    def __init__(self, command: list[str], env: Mapping[str, str], port: int, log: Path) -> None:
        self.port = port
        self._log = log.open("wb")
        self.started_s = time.monotonic()
        self._popen = subprocess.Popen(
            command, env=dict(env), stdout=self._log, stderr=subprocess.STDOUT, cwd=log.parent
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def cpu_s(self) -> float:
        """CPU time of all its threads so far: the kernel's process clock, to the nanosecond."""
        return time.clock_gettime((~self.pid << 3) | 2)  # clock_getcpuclockid(3)

    def memory_mib(self) -> dict[str, float]:
        """Resident now (`Rss`), with its share of shared pages (`Pss`), the most ever (`Peak`)."""
        found = {}
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, kib = line.split()[:2]
            found[name.rstrip(":")] = int(kib) / 1024
        status = Path(f"/proc/{self.pid}/status").read_text()
        peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        return {"Rss": found["Rss"], "Pss": found["Pss"], "Peak": int(peak) / 1024}

    def page(self) -> Page:
        """Its /metrics, by name and labels."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }

    def text(self) -> str:
        """Its /metrics."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def stop(self) -> float:
        """End it by SIGTERM; the seconds that it took."""
        begin_s = time.monotonic()
        self._popen.terminate()
        try:
            self._popen.wait(10)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._log.close()
        return time.monotonic() - begin_s

    def must_live(self) -> None:
        """Raises: RuntimeError: it has ended, with what it last said."""
        if self._popen.poll() is not None:
            raise RuntimeError(Path(self._log.name).read_text()[-2000:])


def start_daemon(
    directory: Path,
    env: Mapping[str, str],
    sysfs: Path,
    *,
    procfs: Path = Path("/proc"),
    settings: str = "",
) -> tuple[Process, float]:
    """The daemon over another /sys, with its defaults but for `settings`, as the installed program
    and its unit start it; and the seconds from exec to READY=1."""
    port = free_port()
    config = directory / "wattledger.toml"
    # The grid has no part in what is measured: the country table alone, as by default.
    config.write_text(f'[path]\nsysfs = "{sysfs}"\nprocfs = "{procfs}"\n{settings}')
    address = directory / "notify"
    address.unlink(missing_ok=True)
    clean = {key: value for key, value in env.items() if not key.endswith("_DIRECTORY")}
    for line in (DEPLOY / "systemd/wattledger.service").read_text().splitlines():
        if line.startswith("Environment="):
            clean |= dict(pair.split("=", 1) for pair in line.split("=", 1)[1].split())
    clean["NOTIFY_SOCKET"] = str(address)
    (options,) = LAUNCHER.findall((DEPLOY / "install.sh").read_text())
    command = [sys.executable, options, "-m", "wattledger.cli", "serve", "--config", str(config)]
    command += ["--ledger", str(directory / "ledger.sqlite"), "--listen", f"127.0.0.1:{port}"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(address))
        notify.settimeout(0.2)
        process = Process(command, clean, port, directory / "daemon.log")
        while True:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in notify.recv(4096):
                    break
            process.must_live()
            if time.monotonic() - process.started_s > 30:
                process.stop()
                raise RuntimeError("the daemon did not become ready within 30 s")
        return process, time.monotonic() - process.started_s


def start_floor(directory: Path, env: Mapping[str, str]) -> Process:
    """The 20-line exporter, once it answers."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("floor.py")), str(port)]
    process = Process(command, env, port, directory / "floor.log")
    while True:
        try:
            process.page()
        except OSError:
            process.must_live()
            time.sleep(0.05)
        else:
            return process


@contextlib.contextmanager
def ended(process: Process) -> Iterator[Process]:
    """Whatever happens, it does not outlive this block."""
    try:
        yield process
    finally:
        if process._popen.poll() is None:
            process.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def series(page: Page, name: str) -> dict[str, float]:
    """The samples of one name; keyed by their device, or by all their labels."""
    found = {}
    for (sample, labels), value in page.items():
        if sample == name:
            named = dict(labels)
            key = named.get("device") or ",".join(f"{k}={v}" for k, v in sorted(named.items()))
            found[key] = value
    return found


def missed_ticks(daemon: Process) -> float:
    """The turns that its meters could not hold, so far."""
    return sum(series(daemon.page(), "wattledger_meter_missed_ticks_total").values())


def machine() -> dict[str, str]:
    """Where this was measured."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((x.split(":")[1] for x in cpuinfo.splitlines() if "model name" in x), "unknown")
    load = os.getloadavg()[0]
    return {
        "cpu": model.strip(),
        "cores": str(os.cpu_count()),
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
        "load": f"{load:.2f}",
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
    }
