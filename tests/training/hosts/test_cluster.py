"""Who takes part in a training, as TF_CONFIG or SLURM tells it."""

import json
import os

import pytest

from experiments_manager.training.errors import TrainingError
from experiments_manager.training.hosts.cluster import host_names, node_address, read_cluster


def tf_config(jobs, kind, index):
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})}


def test_a_process_without_others_trains_by_itself():
    assert read_cluster({}) is None
    assert read_cluster({"TF_CONFIG": ""}) is None
    assert read_cluster(tf_config({"worker": ["a:1"]}, "worker", 0)) is None
    assert read_cluster({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_PROCID": "0"}) is None


def test_the_first_worker_is_the_chief_unless_there_is_one_of_that_name():
    workers = read_cluster(tf_config({"worker": ["a:1", "b:2"]}, "worker", 0))
    assert (workers.addresses, workers.is_chief) == (("a:1", "b:2"), True)
    named = read_cluster(tf_config({"chief": ["c:3"], "worker": ["a:1", "b:2"]}, "worker", 1))
    assert (named.addresses, named.index) == (("c:3", "a:1", "b:2"), 2)


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"TF_CONFIG": "{"}, "cannot be read"),
        ({"TF_CONFIG": "{}"}, "cannot be read"),
        (tf_config({"worker": ["a:1", "b:2"]}, "worker", 2), "no task 2"),
        (tf_config({"worker": ["a:1", "b:2"], "ps": ["c:3"]}, "worker", 0), "'ps'"),
        (tf_config({"worker": ["a", "b:2"]}, "worker", 0), "no address"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_with_an_example(environment, problem):
    with pytest.raises(TrainingError, match=problem) as caught:
        read_cluster(environment)
    assert "Expected e.g." in str(caught.value)


SLURM = {
    "SLURM_JOB_ID": "12",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "n[08-10]",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
    "SLURM_PROCID": "2",
}


def of_slurm(**changes):
    return read_cluster(SLURM | changes, lambda node: node)


def test_the_tasks_of_a_slurm_step_train_together_on_a_port_of_their_job():
    cluster = of_slurm()
    hosts, ports = zip(*(address.split(":") for address in cluster.addresses), strict=True)
    assert (hosts, cluster.index, len(set(ports))) == (("n08", "n09", "n10"), 2, 3)
    assert not {*of_slurm(SLURM_JOB_ID="13").addresses} & {*cluster.addresses}


def test_several_tasks_of_a_node_have_ports_of_their_own():
    cluster = of_slurm(SLURM_STEP_NODELIST="a,b", SLURM_STEP_TASKS_PER_NODE="2,1")
    assert [address.split(":")[0] for address in cluster.addresses] == ["a", "a", "b"]
    assert len(set(cluster.addresses)) == 3


def test_tf_config_counts_before_slurm():
    given = tf_config({"worker": ["a:1", "b:2"]}, "worker", 0)
    assert of_slurm(**given).addresses == ("a:1", "b:2")


def test_variables_of_slurm_that_do_not_fit_together_are_refused():
    with pytest.raises(TrainingError, match="do not fit together"):
        of_slurm(SLURM_STEP_TASKS_PER_NODE="2(x3)")


def test_lists_of_hosts_are_expanded():
    assert list(host_names("n1")) == ["n1"]
    assert list(host_names("gpu[1-2,07],login")) == ["gpu1", "gpu2", "gpu07", "login"]
    assert list(host_names("r[1-2]n[3-4]")) == ["r1n3", "r1n4", "r2n3", "r2n4"]


def test_a_node_that_only_slurm_knows_has_the_address_that_slurm_tells(tmp_path, monkeypatch):
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho NodeName=$3 NodeAddr=10.0.0.$#\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert node_address("no-such-node.invalid") == "10.0.0.3"
    assert node_address("localhost") == "localhost"
