"""A real Slurm of one node or several: Debian's munged, slurmctld and slurmd, in a directory.

    with Slurm({"h100": 4}) as slurm:
        job = slurm.submit(user, "#!/bin/sh\nsleep 1\n", "--gres=gpu:1")
        slurm.job(job)["JobState"]

Its ports are on loopback, each node has a name of its own (and so have its cgroups), its hooks are
those of `deploy/slurm`, writing elsewhere. Its GPUs are device files that nobody opens. It ends
with everything that it started, and removes what it made.

The controller runs as `slurm`, as on any cluster, slurmd as root. Neither systemd nor sacct is
needed. Settings: https://slurm.schedmd.com/slurm.conf.html, cgroup.conf.html, gres.conf.html.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from e2e.daemon import free_port
from waiting import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel")
HOOKS = Path(__file__).parents[2] / "deploy" / "slurm"
CGROUPS = Path("/sys/fs/cgroup")
USER = "slurm"
NULL = os.makedev(1, 3)

CONFIG = """
ClusterName=wattledger
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={home}/munge/socket,cred_expire=5
SlurmUser={user}
SlurmdUser=root
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool/%n
SlurmctldPidFile={home}/state/slurmctld.pid
SlurmdPidFile={home}/spool/%n.pid
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/cgroup
JobAcctGatherFrequency=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=10000
SchedulerType=sched/builtin
MpiDefault=none
ReturnToService=2
MinJobAge=300
MaxArraySize=100
KillWait=2
SlurmdParameters=config_overrides
PrologFlags=Alloc,Contain
Prolog={home}/hooks/prolog
Epilog={home}/hooks/epilog
PrologSlurmctld={home}/hooks/prolog_slurmctld
EpilogSlurmctld={home}/hooks/epilog_slurmctld
GresTypes=gpu
PartitionName=debug Nodes=ALL Default=YES MaxTime=10 DefMemPerCPU=100 State=UP OverSubscribe=NO
"""

NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=16 RealMemory=8000 "
    "Gres={gres}\n"
)

CGROUP_CONFIG = """
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainCores=no
ConstrainRAMSpace=yes
"""


class Slurm:
    """A cluster of one node, or of several on this machine.

    Args:
        gpus: type → how many a node has of it; their numbers go on from type to type.
        nodes: how many. Each has a directory of its own for its hooks, `jobs_dir_of`.
        settings: more lines of slurm.conf; `{home}` is filled in.
    """

    def __init__(self, gpus: Mapping[str, int], nodes: int = 1, settings: str = "") -> None:
        # Not below pytest's own directory, which other users may not enter.
        self.home = Path(tempfile.mkdtemp(prefix="wattledger-slurm-", dir="/tmp"))
        self.home.chmod(0o755)
        self.node = f"wl{os.getpid()}"
        self.nodes = (
            [f"{self.node}{chr(97 + n)}" for n in range(nodes)] if nodes > 1 else [self.node]
        )
        self._settings = settings
        self.jobs_dir = self.home / "run" / "jobs"
        self.names_dir = self.home / "run" / "names"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "SLURM_CONF": str(self.home / "slurm.conf"),
        }
        self._lay_out(gpus)

    def _lay_out(self, gpus: Mapping[str, int]) -> None:
        for name, owner in {
            "munge": "munge",
            "state": USER,
            "spool": "root",
            "log": "root",
            "dev": "root",
            "hooks": "root",
            "run": "root",
            "run/names": USER,
        }.items():
            (self.home / name).mkdir(mode=0o755)
            shutil.chown(self.home / name, owner)
        key = self.home / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        shutil.chown(key, "munge")
        numbers = range(sum(gpus.values()))
        for number in numbers:
            os.mknod(self.home / "dev" / f"nvidia{number}", 0o666 | stat.S_IFCHR, NULL)
        for script in HOOKS.glob("*.sh"):
            shutil.copy(script, self.home / "hooks")
            wrapper = self.home / "hooks" / script.stem
            wrapper.write_text(
                f"#!/bin/sh\nWATTLEDGER_JOBS_DIR={self.jobs_dir_of('$SLURMD_NODENAME')}\n"
                f"WATTLEDGER_NAMES_DIR={self.names_dir}\n"
                f"WATTLEDGER_ENDED_DIR={self.home}/run/ended\n"
                f"WATTLEDGER_RECEIPTS_FROM={self.home}/receipts-from\n"
                f"WATTLEDGER_PROGRAM={self.home}/wattledger\n"
                "export WATTLEDGER_JOBS_DIR WATTLEDGER_NAMES_DIR WATTLEDGER_ENDED_DIR\n"
                "export WATTLEDGER_RECEIPTS_FROM WATTLEDGER_PROGRAM\n"
                f"exec {self.home}/hooks/{script.name}\n"
            )
            wrapper.chmod(0o755)
        host = socket.gethostname().partition(".")[0]
        gres = ",".join(f"gpu:{kind}:{count}" for kind, count in gpus.items())
        config = CONFIG.format(
            home=self.home, host=host, user=USER, controller_port=free_port()
        ) + self._settings.format(home=self.home)
        for node in self.nodes:
            (self.home / "spool" / node).mkdir()
            config += NODE.format(name=node, host=host, port=free_port(), gres=gres)
        (self.home / "slurm.conf").write_text(config)
        (self.home / "cgroup.conf").write_text(CGROUP_CONFIG)
        kinds = [kind for kind, count in gpus.items() for _ in range(count)]
        (self.home / "gres.conf").write_text(
            "".join(
                f"NodeName={node} Name=gpu Type={kind} File={self.home}/dev/nvidia{number}\n"
                for node in self.nodes
                for number, kind in zip(numbers, kinds, strict=True)
            )
        )

    # ── life ────────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Slurm:
        munge = self.home / "munge"
        files = ("socket", "key-file", "pid-file", "log-file", "seed-file")
        try:
            self._spawn(
                "munged",
                "--foreground",
                *(f"--{name}={munge / name.removesuffix('-file')}" for name in files),
                user="munge",
            )
            wait_until((munge / "socket").exists, 60, "munged listens")
            self._spawn("slurmctld", "-D", "-c", user="root")
            for node in self.nodes:
                self._spawn("slurmd", "-D", "-N", node, user="root")
            wait_until(self._is_idle, 60, "the node is idle")
        except BaseException as error:
            error.add_note(self.log())
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spawn(self, *command: str, user: str) -> None:
        as_user = pwd.getpwnam(user)
        with (self.home / "log" / command[0]).open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=self._env,
                user=as_user.pw_uid,
                group=as_user.pw_gid,
                extra_groups=[],
                start_new_session=True,
            )
        self._processes.append(process)

    def _is_idle(self) -> bool:
        for process in self._processes:
            assert process.poll() is None, f"{process.args!r} has ended"
        done = self._run("sinfo", "--noheader", "--format=%T")
        return done.stdout.strip() == b"idle"

    def close(self) -> None:
        """End the jobs, the daemons and what is left of both."""
        if len(self._processes) == 2 + len(self.nodes) and not any(
            p.poll() is not None for p in self._processes
        ):
            for node in self.nodes:
                self._run("scancel", f"--nodelist={node}")
            wait_until(lambda: not self._run("squeue", "--noheader").stdout.strip(), 60, "no jobs")
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self._processes.clear()
        for hierarchy in CGROUPS.iterdir():
            for node in self.nodes:
                for directory, _, _ in os.walk(hierarchy / f"slurm_{node}", topdown=False):
                    Path(directory).rmdir()
        shutil.rmtree(self.home)

    def jobs_dir_of(self, node: str) -> Path:
        """Where a node's prolog writes."""
        return self.jobs_dir if len(self.nodes) == 1 else self.home / "run" / f"jobs-{node}"

    def log(self) -> str:
        """What the daemons said."""
        return "\n".join(
            f"== {file.name}\n{file.read_text(errors='replace')}"
            for file in sorted((self.home / "log").iterdir())
        )

    # ── jobs ────────────────────────────────────────────────────────────────────────────────────

    def submit(self, user: pwd.struct_passwd, script: str, *options: str | bytes) -> str:
        """Queue a batch script of a user; returns the job's number, of an array the array's."""
        done = self._run(
            "sbatch", "--parsable", "--output=/dev/null", *options, user=user, text=script
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode().strip()

    def control(self, *arguments: str) -> str:
        """The output of a `scontrol` command."""
        done = self._run("scontrol", *arguments)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode(errors="replace")

    def requeue(self, job_id: str) -> None:
        """Have a running job begin again, in about nine seconds.

        slurmd does not run its prolog a second time while it remembers the job's first credential:
        for `cred_expire`, at least 5 s, and up to 2 s more.
        """
        self.control("requeue", job_id)
        wait_until(lambda: self.job(job_id)["JobState"] == "PENDING", 60, "it waits")
        self.control("update", f"JobId={job_id}", "StartTime=now+9")

    def job(self, job_id: str) -> dict[str, str]:
        """What `scontrol show job` says of a job, as it names it."""
        text = self.control("show", "--details", "job", job_id)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def _run(
        self, *command: str | bytes, user: pwd.struct_passwd | None = None, text: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        whose = user or pwd.getpwuid(0)
        return subprocess.run(
            command,
            input=text.encode(),
            capture_output=True,
            cwd="/",
            env={**self._env, "HOME": "/", "USER": whose.pw_name},
            user=whose.pw_uid,
            group=whose.pw_gid,
            extra_groups=[],
            timeout=60,
        )
