"""The page about a sweep, and its figures."""

import json
import re

import pytest

from experiments_manager.sweeps.results.page import write_report
from experiments_manager.sweeps.state.folder import SweepFolder
from experiments_manager.sweeps.state.trials import SweepState


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The text of a page about twelve trials, one of which failed, and its folder."""
    folder = SweepFolder(tmp_path_factory.mktemp("sweeps") / "digits <b>")
    folder.path.mkdir()
    state = SweepState(
        [{"event": "opened", "objectives": ["val_loss"], "modes": ["min"], "algorithm": "tpe", "seed": 7, "at": 3.0}]
    )
    for number in range(12):
        overrides = {"rate": 10.0**-number, "kind": "</script>" if number % 2 else "b"}
        state.apply(
            {"event": "proposed", "trial": number, "point": {}, "overrides": overrides, "space": "", "by": "tpe"}
        )
        ended = {"state": "finished", "values": [(number - 4) ** 2 + 0.5], "epochs": 3, "seconds": 1.0}
        if number == 11:
            ended = {"state": "failed", "reason": "ValueError: no <such> model"}
        state.apply({"event": "ended", "trial": number, **ended})
    file = write_report(folder, state, "experiments_manager train x --set a='b'")
    return file.read_text(), folder


def test_the_page_needs_no_network(page):
    text, _ = page
    assert "default-src 'none'" in text
    assert not re.search(r'(src|href)="(?!#|data:)', text)


def test_it_holds_every_trial_the_best_command_and_reasons_as_text(page):
    text, _ = page
    assert len(re.findall(r"<tr data-trial=", text)) == 12
    assert '<tr data-trial="4" class="best">' in text
    assert "experiments_manager train x --set a=&#39;b&#39;" in text
    assert "no &lt;such&gt; model" in text
    assert "digits &lt;b&gt;" in text


def test_the_interactive_figure_has_all_results_and_no_way_out_of_its_script(page):
    text, _ = page
    script = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    data = json.loads(script)
    assert [axis["name"] for axis in data["axes"]] == ["kind", "rate", "val_loss"]
    assert len(data["trials"]) == 11
    assert data["axes"][0]["labels"] == ["</script>", "b"]


def test_the_figures_are_files_too(page):
    _, folder = page
    names = {path.stem for path in folder.figures_dir.iterdir()}
    assert names == {"history", "importance", "hyperparameters", "parallel_coordinates", "contour"}


def test_without_a_result_there_is_no_page(tmp_path):
    state = SweepState([{"event": "opened", "objectives": ["val_loss"], "modes": ["min"]}])
    assert write_report(SweepFolder(tmp_path), state, None) is None
