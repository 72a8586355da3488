#!/usr/bin/env python3
"""Run a small SLURM on this machine, for a first try and for tests.

    python3 tools/local_slurm.py start                     # two nodes, files in ./local_slurm
    eval "$(python3 tools/local_slurm.py environment)"     # sbatch, squeue … of this shell use it
    python3 tools/local_slurm.py stop

It is SLURM itself: munged, slurmctld and a slurmd for each node, on the loopback address, with all their files in one
folder. It needs root, Debian's packages slurm-wlm and munge (22.05 or newer) and Python's standard library. There are
two partitions, `low` and `high`; a job of `high` preempts those of `low`, which are queued again. There is no
accounting database, so `sacct` answers from what slurmctld remembers, by a stand-in that this script writes into the
folder `bin`.
"""

import argparse
import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HOST = "127.0.0.1"
STATE = "slurm.json"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
START_SECONDS, STOP_SECONDS = 30, 15
CONFIGURATION = """# Written by tools/local_slurm.py at every start.
ClusterName=local
SlurmctldHost={hostname}({host})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/%n
# What needs control groups or a database is left out.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Looks at the memory of jobs every second, and ends those that take more than they asked for.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
AccountingStorageType=accounting_storage/none
# Jobs share the processors of a node by cores and memory.
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={memory_of_cpu}
# A job of a higher partition puts those of the lower back into the queue, and warns them as at a time limit.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
ReturnToService=2
# Everything happens within seconds.
SchedulerParameters=sched_interval=1,sched_min_interval=0,requeue_delay=0,bf_interval=1,batch_sched_delay=0
SchedulerType=sched/backfill
KillWait=5
OverTimeLimit=0
MinJobAge={remembered}
SlurmctldTimeout=300
SlurmdTimeout=300
InactiveLimit=0
MailProg=/bin/true
MpiDefault=none
NodeName=DEFAULT CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory={memory}
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 MaxTime=INFINITE State=UP GraceTime={grace}
PartitionName=high Nodes=ALL PriorityTier=10 MaxTime=INFINITE State=UP PreemptMode=OFF
"""
SACCT = '''#!{python}
"""Stand-in for sacct: tells what slurmctld remembers of jobs, in the format of `sacct --parsable2`."""
import re, subprocess, sys

fields, jobs, header = ["JobID", "State", "NodeList"], [], True
arguments = iter(sys.argv[1:])
for argument in arguments:
    name, _, value = argument.partition("=")
    if name in ("-o", "--format"):
        fields = (value or next(arguments)).split(",")
    elif name in ("-j", "--jobs"):
        jobs += (value or next(arguments)).split(",")
    elif name in ("-n", "--noheader"):
        header = False
if header:
    print("|".join(fields))
told = subprocess.run(["scontrol", "--oneliner", "show", "job"], capture_output=True, text=True).stdout
for line in told.splitlines():
    job = dict(re.findall(r"(\\w+)=(\\S*)", line))
    if "JobId" not in job or (jobs and job["JobId"] not in jobs and job.get("ArrayJobId") not in jobs):
        continue
    number = job["JobId"]
    if "ArrayTaskId" in job:
        number = job["ArrayJobId"] + "_" + job["ArrayTaskId"]
    known = {{"jobid": number, "state": job["JobState"], "nodelist": job.get("NodeList", ""),
             "exitcode": job.get("ExitCode", ""), "jobname": job.get("JobName", ""), "reason": job.get("Reason", ""),
             "elapsed": job.get("RunTime", ""), "restarts": job.get("Restarts", "")}}
    print("|".join(known.get(field.lower(), "") for field in fields))
'''


class Problem(Exception):
    """What keeps SLURM from being started or stopped, in one sentence or two for the user."""


def parse(arguments):
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run a small SLURM on this machine.", allow_abbrev=False)
    parser.add_argument("command", choices=["start", "stop", "status", "environment"])
    parser.add_argument("--folder", type=Path, default=Path("local_slurm"), metavar="DIR", help="where its files are")
    parser.add_argument("--nodes", type=int, default=2, metavar="N", help="number of nodes (default: 2)")
    parser.add_argument("--cpus", type=int, default=2, metavar="N", help="processors of a node (default: 2)")
    parser.add_argument("--memory", type=int, default=4000, metavar="MB", help="memory of a node (default: 4000)")
    parser.add_argument(
        "--grace", type=int, default=30, metavar="S", help="seconds that a preempted job has to end (default: 30)"
    )
    parser.add_argument(
        "--remembered", type=int, default=3600, metavar="S", help="seconds that jobs are known after their end"
    )
    given = parser.parse_args(arguments)
    given.folder = given.folder.expanduser().resolve()
    for name in ("nodes", "cpus", "memory"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} is {getattr(given, name)}. Expected a whole number from 1 on.")
    return given


def start(given):
    """Start the daemons, and return when the nodes are ready for jobs."""
    folder = given.folder
    if running(folder):
        return f"Already running in {folder}."
    check_name(folder)
    check_machine()
    make_folders(folder)
    ports = free_ports(1 + given.nodes)
    (folder / "slurm.conf").write_text(configuration(given, ports), encoding="utf-8")
    write_stand_in(folder)
    environment = os.environ | settings_of(folder)
    processes = {}
    try:
        processes["munged"] = start_munged(folder)
        processes["slurmctld"] = launch(folder, "slurmctld", ["slurmctld", "-D", "-i"], environment)
        for number in range(1, given.nodes + 1):
            processes[f"n{number}"] = launch(
                folder, f"slurmd{number}", ["slurmd", "-D", "-N", f"n{number}"], environment
            )
        (folder / STATE).write_text(json.dumps({name: identity(pid) for name, pid in processes.items()}))
        wait_for_nodes(folder, processes, environment)
    except BaseException:
        end(processes)
        (folder / STATE).unlink(missing_ok=True)
        raise
    return f"SLURM runs, with nodes {', '.join(sorted(set(processes) - {'munged', 'slurmctld'}))}. Its files: {folder}."


def check_machine():
    """Raise what is missing."""
    if os.geteuid() != 0:
        raise Problem("The daemons of SLURM run as root. Start this script as root.")
    missing = [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]
    if missing:
        raise Problem(f"{', '.join(missing)}: not found. Install them: apt-get install slurm-wlm munge")


def check_name(folder):
    """Refuse a folder that slurm.conf could not name."""
    if any(character in "#=,%'\"\\" or not character.isprintable() or character.isspace() for character in str(folder)):
        raise Problem(f"SLURM cannot have its files in {folder}. Expected a path without spaces and # = , % ' \" \\.")


def search_path():
    """Return the PATH with the folders of daemons."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


def make_folders(folder):
    """Make the folders, that of munge for its own user alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("state", "bin", "munge"):
        (folder / name).mkdir(exist_ok=True)
    user = munge_user()
    (folder / "munge").chmod(0o711)  # others reach the socket in it and see nothing else
    key = folder / "munge/munge.key"
    if not key.exists():
        key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    for path in (folder / "munge", key):
        os.chown(path, user.pw_uid, user.pw_gid)


def munge_user():
    """Return the account that Debian's package makes for munged."""
    try:
        return pwd.getpwnam("munge")
    except KeyError:
        raise Problem("There is no user named munge. Install the package munge, which makes one.") from None


def configuration(given, ports):
    """Return the text of slurm.conf."""
    nodes = "\n".join(
        f"NodeName=n{number} NodeHostname={socket.gethostname()} NodeAddr={HOST} Port={port}"
        for number, port in enumerate(ports[1:], start=1)
    )
    return CONFIGURATION.format(
        hostname=socket.gethostname(),
        host=HOST,
        folder=given.folder,
        port=ports[0],
        nodes=nodes,
        cpus=given.cpus,
        memory=given.memory,
        memory_of_cpu=given.memory // given.cpus,
        grace=given.grace,
        remembered=given.remembered,
    )


def write_stand_in(folder):
    """Write the stand-in for sacct."""
    program = folder / "bin/sacct"
    program.write_text(SACCT.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)


def settings_of(folder):
    """Return the environment in which SLURM's commands find this one."""
    return {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder / 'bin'}{os.pathsep}{search_path()}"}


def start_munged(folder):
    """Start the daemon that signs credentials, as its own user, and wait for its socket."""
    user, place = munge_user(), folder / "munge"
    names = {
        "key-file": "munge.key",
        "socket": "munge.socket",
        "pid-file": "pid",
        "log-file": "log",
        "seed-file": "seed",
    }
    options = [f"--{option}={place / name}" for option, name in names.items()]
    with (folder / "munged.out").open("ab") as log:
        process = subprocess.Popen(
            [shutil.which("munged", path=search_path()), "--foreground", "--force", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
        )
    deadline = time.monotonic() + START_SECONDS
    while not (place / "munge.socket").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            end({"munged": process.pid})
            raise Problem(f"munged did not start. Its log: {tail(folder / 'munged.out')}")
        time.sleep(0.05)
    return process.pid


def launch(folder, name, command, environment):
    """Start a daemon in the background and return its process id."""
    with (folder / f"{name}.out").open("ab") as log:
        program = shutil.which(command[0], path=search_path())
        process = subprocess.Popen(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
        )
    return process.pid


def wait_for_nodes(folder, processes, environment):
    """Wait until all nodes are idle, and say why they are not."""
    deadline, said = time.monotonic() + START_SECONDS, ""
    nodes = len(processes) - 2
    while time.monotonic() < deadline:
        for name, pid in processes.items():
            if not is_alive(pid):
                raise Problem(
                    f"{name} ended. Its log: {tail(folder / (name + '.out'))} {tail(folder / (name + '.log'))}"
                )
        told = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--partition=low", "--format=%T"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
        said = told.stdout + told.stderr
        if told.stdout.split().count("idle") == nodes:
            return
        time.sleep(0.1)
    raise Problem(f"The nodes were not ready within {START_SECONDS} s. sinfo says: {said} Logs: {folder}")


def stop(folder):
    """Stop the daemons that `start` started; jobs that run are ended with their nodes."""
    state = running(folder)
    if not state:
        return "It does not run."
    environment = os.environ | settings_of(folder)
    with contextlib.suppress(subprocess.TimeoutExpired, OSError):  # so that no job goes on without its node
        subprocess.run(["scancel", "--partition=low"], env=environment, timeout=10, check=False, capture_output=True)
        subprocess.run(["scancel", "--partition=high"], env=environment, timeout=10, check=False, capture_output=True)
        wait_for_jobs(environment)
    end({name: entry["pid"] for name, entry in state.items()})
    (folder / STATE).unlink(missing_ok=True)
    return "Stopped."


def wait_for_jobs(environment):
    """Wait until no job runs or completes any more."""
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        told = subprocess.run(
            ["squeue", "--noheader", "--states=running,completing"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=10,
        )
        if told.returncode or not told.stdout.strip():
            return
        time.sleep(0.2)


def end(processes):
    """End processes by their ids: nodes first, then the controller, then what signs their messages."""
    order = sorted(processes, key=lambda name: {"slurmctld": 1, "munged": 2}.get(name, 0))
    for name in order:
        pid = processes[name]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def identity(pid):
    """Return what tells a process from a later one with the same id."""
    return {"pid": pid, "started": started(pid)}


def started(pid):
    """Return when a process began, in ticks since the machine did; None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def is_alive(pid):
    """Return whether a process is there; one of ours that ended is waited for."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return started(pid) is not None


def running(folder):
    """Return the daemons of a folder that are there, by name."""
    try:
        state = json.loads((folder / STATE).read_text())
    except (OSError, ValueError):
        return {}
    return {name: entry for name, entry in state.items() if started(entry["pid"]) == entry["started"]}


def free_ports(count):
    """Return ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def tail(path, lines=5):
    """Return the last lines of a file."""
    try:
        return " / ".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(none)"


def main(arguments=None):
    """Run the command line; return its exit code."""
    given = parse(arguments)
    try:
        if given.command == "start":
            print(start(given))
        elif given.command == "stop":
            print(stop(given.folder))
        elif given.command == "status":
            state = running(given.folder)
            print(f"Running: {', '.join(sorted(state))}." if state else "It does not run.")
            return 0 if state else 3
        else:
            for name, value in settings_of(given.folder).items():
                print(f"export {name}='{value}'")
    except (Problem, OSError, subprocess.TimeoutExpired) as problem:
        print(f"local_slurm: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
