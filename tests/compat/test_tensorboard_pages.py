"""Do TensorBoard's pages still read what they show by the methods that ours replace? Failures say where to look."""

import pytest
from tensorboard import default
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from werkzeug.test import Client

from experiments_manager.compat import tensorboard_pages as compat
from experiments_manager.compat.tensorboard import ProjectorConfig, hparams_summary
from experiments_manager.monitoring.tensorboard.event_files import EventFile, scalars_summary

SEE = "TensorBoard moved or changed {}; see experiments_manager/compat/tensorboard_pages.py"


@pytest.fixture
def context(tmp_path):
    """What TensorBoard gives its pages, over one run with hyperparameters, two metrics and an embedding."""
    file = EventFile(tmp_path / "run", first_step=0)
    file.write(hparams_summary({"rate": 0.5}), step=0)
    file.write(scalars_summary({"a": 1.0, "b": 2.0}), step=1)
    file.close()
    (tmp_path / "run" / "tensor.tsv").write_text("1.0\t2.0\n")
    config = ProjectorConfig()
    config.embeddings.add(tensor_name="codes", tensor_path="tensor.tsv")
    (tmp_path / "run" / compat.PROJECTOR_FILENAME).write_text(str(config))
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    return base_plugin.TBContext(data_provider=provider, logdir=str(tmp_path))


def ask(page, route, **request):
    return Client(page.get_plugin_apps()[route]).open("/", **request).get_json()


def test_the_pages_that_are_replaced_are_among_tensorboards_own():
    assert {compat.HPARAMS, compat.PROJECTOR} <= set(default.get_plugins()), SEE.format("its list of plug-ins")


def test_the_hparams_page_shows_what_its_subclass_says(context):
    class Page(compat.AdjustedHParams):
        def adjusted_contents(self, contents, logdir):
            data = contents["run"][compat.SESSION_START_INFO_TAG]
            start = compat.HParamsPluginData.FromString(data)
            start.session_start_info.hparams["rate"].string_value = "adjusted"
            return {**contents, "run": {compat.SESSION_START_INFO_TAG: start.SerializeToString()}}

        def sorted_metrics(self, metrics):
            return sorted(metrics, key=lambda info: info.name.tag, reverse=True)

    experiment = ask(Page(context), "/experiment", method="POST", json={})
    assert [info["name"]["tag"] for info in experiment["metricInfos"]] == ["b", "a"], SEE.format(
        "HParamsPlugin._context or Context.experiment_from_metadata"
    )
    types = [info["type"] for info in experiment["hparamInfos"]]
    assert types == ["DATA_TYPE_STRING"], SEE.format("HParamsPlugin._context or Context.hparams_metadata")


class Projector(compat.AdjustedProjector):
    stale = True
    adjusted = 0

    def is_stale(self, files):
        self.files = files
        return self.stale

    def adjusted_configs(self, configs, files):
        self.adjusted += 1
        assert set(files) == {"run"}
        return configs


def test_the_projector_reads_its_configurations_again_only_where_they_are_stale(context):
    page = Projector(context)
    assert page.is_active(), SEE.format("ProjectorPlugin._configs or _update_configs")
    assert [file.parent.name for file in page.files] == ["run"]
    assert ask(page, "/runs") == ["run"], SEE.format("ProjectorPlugin._update_configs")
    assert page.adjusted == 2, SEE.format("ProjectorPlugin._run_paths or _read_latest_config_files")
    page.stale = False
    assert ask(page, "/runs") == ["run"]
    assert page.adjusted == 2, SEE.format("ProjectorPlugin._update_configs")
