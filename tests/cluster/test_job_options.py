"""What a job asks for comes from the site, the settings and the command line, and is checked before it is submitted."""

import pytest

from experiments_manager.cluster import job_options
from experiments_manager.cluster.errors import ClusterError
from experiments_manager.cluster.job_options import merged_options, options_of_texts


def test_later_places_count_and_lists_are_joined():
    options = merged_options(
        ("site", {"partition": "long", "setup": ["module load apptainer"], "time": 60}),
        ("settings", {"time": "4:00:00", "gpus": 2}),
        ("submit", {"partition": None, "setup": ["export A=1"], "mem": "8G"}),
    )
    assert (options.partition, options.time, options.gpus, options.mem) == ("long", "4:00:00", "2", "8G")
    assert options.setup == ["module load apptainer", "export A=1"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"tme": "1:00:00"}, "tme is unknown. Did you mean `time`?"),
        ({"time": "1h"}, "Expected minutes, HH:MM:SS or D-HH:MM:SS, got '1h'"),
        ({"mem": "16 GB"}, "Expected a size such as 16G"),
        ({"nodes": 0}, "Expected an integer of at least 1, got 0"),
        ({"cpus": True}, "Expected an integer"),
        ({"setup": ["module load a\nrm x"]}, "Expected texts of one line"),
        ({"sbatch": ["qos=long"]}, "Expected options such as --qos=long"),
        ({"partition": ""}, "Expected a text of one line"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(given, sentence):
    with pytest.raises(ClusterError) as caught:
        merged_options(("site.toml", given))
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("site.toml: ")


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(ClusterError) as caught:
        merged_options(("site", {"time": "soon"}), ("submit", {"nodes": -1, "mem": "x"}))
    assert [word in str(caught.value) for word in ("time is wrong", "nodes is wrong", "mem is wrong")] == [True] * 3


def test_the_file_of_the_site_is_read_where_the_standard_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert job_options.read_site_file() == {}
    file = tmp_path / "experiments_manager" / "cluster.toml"
    file.parent.mkdir()
    file.write_text('partition = "gpu"\nsetup = ["module load cuda"]\n')
    assert job_options.read_site_file() == {"partition": "gpu", "setup": ["module load cuda"]}
    file.write_text("partition = \n")
    with pytest.raises(ClusterError, match="Expected TOML"):
        job_options.read_site_file()


def test_options_as_texts_have_the_types_of_the_table_and_lists_may_come_several_times():
    texts = ["cpus=4", "time=30", "setup=module load a", "setup=b", "sbatch=--qos=long"]
    found = options_of_texts(texts)
    assert found == {"cpus": 4, "time": "30", "setup": ["module load a", "b"], "sbatch": ["--qos=long"]}
    assert merged_options(("--cluster", found)).cpus == 4
    with pytest.raises(ClusterError, match="--cluster: cpus is wrong. Expected an integer of at least 1, got 'many'"):
        merged_options(("--cluster", options_of_texts(["cpus=many"])))
    with pytest.raises(ClusterError, match="partition: expected NAME=VALUE"):
        options_of_texts(["partition"])


@pytest.mark.parametrize(
    "given",
    [
        {"time": "2"},
        {"time": 2},
        {"time": "1:30"},
        {"time": "4:00:00", "warning": 4 * 3600},
        {"time": "1-00:00:30", "warning": 100_000},
        {"time": "4:00:00", "sbatch": ["--time=2"]},
        {"time": "2:59"},
        {"time": "2", "warning": 119},
    ],
)
def test_a_warning_that_may_come_as_soon_as_the_job_begins_is_refused(given):
    with pytest.raises(ClusterError, match="warning leaves the job no time to train in. Expected at most"):
        merged_options(("submit", given))


def test_a_warning_shorter_than_the_job_or_without_a_known_limit_is_taken():
    for given in ({"time": "3"}, {"time": "0"}, {"time": "0-1"}, {"warning": 10**6}, {"time": "2", "warning": 30}):
        assert merged_options(("submit", given))
