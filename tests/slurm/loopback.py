"""A real Slurm on this machine, private and on loopback: munged, slurmctld and slurmd, with a pretend GPU.

    python tests/slurm/loopback.py COMMAND ...       runs the command where sbatch, srun, squeue ... ask this Slurm

Configuration, state, sockets and logs lie in a folder of their own. No accounting, so `sacct` knows nothing, as on many
clusters. The daemons run in the foreground under our pids, and die with the process that started them.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")
DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "srun", "squeue", "scancel", "sinfo", "scontrol", "sacct", "sacctmgr", "sshare")
READY_S = 30
CPUS = 8
SLURM_CONF = """
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=defer,batch_sched_delay=0,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge=300
KillWait=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=localhost NodeHostName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 Gres=gpu:1 State=UNKNOWN
PartitionName=debug Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""
GRES_CONF = "NodeName=localhost Name=gpu Count=1 File=/dev/null\n"


def why_not() -> str | None:
    """Install what is not here yet; return why there is no Slurm, or None."""
    if absent():
        if os.geteuid() != 0:
            return f"{', '.join(absent())} not installed, and only root can install them"
        if not shutil.which("apt-get"):
            return f"{', '.join(absent())} not installed, and there is no apt-get"
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for call in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
            done = subprocess.run(["apt-get", "-q", *call], env=environment, capture_output=True, text=True)
            if done.returncode:
                return f"apt-get {call[0]} failed: {done.stderr.strip().splitlines()[-1:]}"
    return "munged and slurmd want root" if os.geteuid() != 0 else None


def absent() -> list[str]:
    return [name for name in DAEMONS if not find(name)]


def find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")


@contextmanager
def running(folder: Path, cpus: int = CPUS) -> Iterator[dict[str, str]]:
    """Start a Slurm whose files lie in `folder`; yield the environment in which commands find it, and stop it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir(exist_ok=True)
    conf = folder / "slurm.conf"
    conf.write_text(SLURM_CONF.format(folder=folder, ports=free_ports(2), cpus=cpus))
    (folder / "gres.conf").write_text(GRES_CONF)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    for name in CLIENTS:
        # not by the environment: inside a job the plugin of Snakemake takes SLURM_* from it
        client = folder / "bin" / name
        client.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {find(name)} "$@"\n')
        client.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "CUDA_"))}
    environment["PATH"] = f"{folder / 'bin'}:{environment['PATH']}"
    munge = [f"--socket={folder}/munge.socket", f"--key-file={key}", f"--pid-file={folder}/munge.pid"]
    munge += [f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed", "--num-threads=2"]
    daemons: list[subprocess.Popen] = []
    try:
        daemons.append(start(folder, "munged", "--foreground", "--force", *munge))
        wait_for((folder / "munge.socket").exists, daemons, folder)
        daemons.append(controller(folder))
        daemons.append(start(folder, "slurmd", "-D", "-N", "localhost", "-f", str(conf)))
        wait_for(lambda: ask(environment, "sinfo", "-h", "-o", "%t").startswith("idle"), daemons, folder)
        yield environment
    finally:
        ask(environment, "scancel", "--full", "--signal=KILL", "--state=RUNNING")
        ask(environment, "scancel", "--user=root")
        wait_for(lambda: not ask(environment, "squeue", "-h"), (), folder, fail=False)
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def controller(folder: Path) -> subprocess.Popen:
    """Start the controller, which knows the jobs of the one before it in this folder."""
    return start(folder, "slurmctld", "-D", "-f", str(folder / "slurm.conf"))


def start(folder: Path, name: str, *options: str) -> subprocess.Popen:
    with (folder / f"{name}.out").open("w") as out:
        call = [find("setpriv"), "--pdeathsig", "KILL", find(name), *options]
        return subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)


def ask(environment: dict[str, str], *call: str) -> str:
    """Return what a client says, "" where it fails."""
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else ""


def wait_for(true, daemons, folder: Path, fail: bool = True) -> None:
    deadline = time.monotonic() + READY_S
    while not true():
        dead = [daemon.args[3] for daemon in daemons if daemon.poll() is not None]
        if dead or time.monotonic() > deadline:
            if not fail:
                return
            logs = "\n".join(f"{path.name}: {path.read_text()[-1000:]}" for path in folder.glob("*.[lo][ou][gt]"))
            raise RuntimeError(f"Slurm does not start ({dead or 'time is up'})\n{logs}")
        time.sleep(0.1)


def free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    if reason := why_not():
        sys.exit(f"no Slurm: {reason}")
    with tempfile.TemporaryDirectory() as place, running(Path(place)) as own:
        sys.exit(subprocess.run(sys.argv[1:], env=own).returncode)
