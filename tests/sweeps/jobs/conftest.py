"""A cluster of shell scripts: it queues, and forgets nothing; what becomes of a job is for the test to say."""

import pytest

COMMANDS = {
    "sbatch": """
for script; do :; done
if [ -f refusal ]; then cat refusal >&2; exit 1; fi
number=$(($(ls jobs | wc -l) + 1))
echo "PENDING|Priority|$(sed -n 's/^#SBATCH --job-name=//p' "$script")|0|0:0" > "jobs/$number"
env > environment
if [ -f silence ]; then echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1; fi
echo "$number"
""",
    "squeue": """
if [ -f away ]; then echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; fi
for file in jobs/*; do
  [ -f "$file" ] || continue
  IFS='|' read -r state reason name restarts code < "$file"
  case "$state" in PENDING|RUNNING|COMPLETING) echo "${file#jobs/}|$state|$reason|$name" ;; esac
done
""",
    "scontrol": """
for number; do :; done
if [ ! -f "jobs/$number" ]; then echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; fi
IFS='|' read -r state reason name restarts code < "jobs/$number"
echo "JobId=$number JobName=$name JobState=$state Restarts=$restarts Reason=$reason ExitCode=$code NodeList=n1"
""",
    "sacct": "exit 1",
    "scancel": """
IFS='|' read -r state reason name restarts code < "jobs/$1"
echo "CANCELLED|None|$name|0|0:15" > "jobs/$1"
echo "$1" >> cancelled
""",
}


class Cluster:
    """The cluster, as its administrator sees it."""

    def __init__(self, folder):
        self.folder = folder

    @property
    def jobs(self):
        """Gives the states of all jobs that were ever submitted, by their numbers."""
        return {file.name: file.read_text().split("|")[0] for file in sorted((self.folder / "jobs").iterdir())}

    @property
    def queued(self):
        return [number for number, state in self.jobs.items() if state in ("PENDING", "RUNNING")]

    @property
    def cancelled(self):
        file = self.folder / "cancelled"
        return file.read_text().split() if file.exists() else []

    @property
    def environment(self):
        """Gives the environment that the last job was submitted from."""
        return dict(line.partition("=")[::2] for line in (self.folder / "environment").read_text().splitlines())

    def set(self, number, state, *, reason="None", restarts=0, code="0:0"):
        file = self.folder / "jobs" / number
        file.write_text(f"{state}|{reason}|{file.read_text().split('|')[2]}|{restarts}|{code}\n")

    def forget(self, number):
        (self.folder / "jobs" / number).unlink()

    def be(self, manner, words=""):
        """Lets it refuse jobs with some words, be away, or take jobs in silence."""
        (self.folder / manner).write_text(words)

    def be_well(self):
        for manner in ("refusal", "away", "silence"):
            (self.folder / manner).unlink(missing_ok=True)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    folder = tmp_path / "cluster"
    (folder / "jobs").mkdir(parents=True)
    (folder / "bin").mkdir()
    for name, text in COMMANDS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\ncd {folder}\n{text}")
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return Cluster(folder)
