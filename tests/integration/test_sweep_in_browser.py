"""A sweep whose trials were paused, as a researcher sees it in TensorBoard's table of trials, and in its report."""

import csv
import json
import urllib.request

import pytest

import experiments_manager as em
from tests.helpers.boards import Page, open_board
from tests.helpers.sweep_files import write_sweep_files
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.slow
TRIALS = 6
SWEEP = f"""
space["batch_size"] = hp.choice("batch_size", [8, 16])
max_trials = {TRIALS}
parallel = 2
trials_per_process = {TRIALS}
prune = {{"method": "asha", "min_epochs": 1, "reduction": 2}}
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The result of a sweep, and the rows of its table by the names of the runs."""
    folder = tmp_path_factory.mktemp("watched")
    file = write_sweep_files(folder, SWEEP, "epochs = 4; tensorboard = True", name="watched")
    result = em.sweep(file, working_dir=folder, quiet=True)
    with (result.sweep_dir / "trials.csv").open() as stream:
        return result, {row["run"]: row for row in csv.DictReader(stream)}


@pytest.fixture
def shown(browser, screenshots, request):
    """The browser; what was seen at the end is kept."""
    browser.get_log("browser")  # what pages before this one had to say
    yield browser
    browser.switch_to.default_content()
    browser.save_screenshot(str(screenshots / f"{request.node.name.removeprefix('test_')}.png"))
    browser.get("about:blank")  # or it goes on drawing beside other tests


def has_read_all(address, names):
    """Whether TensorBoard has read the last value of each trial: pages that are open show later ones much later."""
    with urllib.request.urlopen(f"{address}data/plugin/scalars/tags", timeout=60) as answer:
        tags = json.load(answer)
    return all("best/loss" in tags.get(f"{name}/logs/validation", ()) for name in names)


def test_tensorboard_lists_every_trial_with_its_hyperparameters_and_its_objective(shown, sweep):
    result, rows = sweep
    assert len(rows) == TRIALS
    assert {row["state"] for row in rows.values()} == {"paused", "finished"}
    with open_board(result.sweep_dir / "trials") as (_, address):
        wait_until(lambda: has_read_all(address, rows), 120)
        page = Page(shown, address)
        page.open("hparams")
        columns = ["learning_rate", "units", "batch_size", "validation.best/loss"]

        def table():
            lines = [line for line in (row.text.splitlines() for row in page.elements("tr")) if line]
            return lines if len(lines) > TRIALS and {*columns} <= {*lines[0]} else None

        head, *lines = page.wait(table)
        assert page.element("tf-hparams-query-pane", f"Number of matching session groups: {TRIALS}")
    places = [head.index(name) - head.index("learning_rate") for name in columns]
    assert sorted(line[0] for line in lines) == sorted(rows)
    for name, *cells in lines:
        row = rows[name]
        expected = [row["learning_rate"], row["units"], row["batch_size"], row["val_loss"]]
        found = [cells[place - len(head) + head.index("learning_rate")] for place in places]
        assert [float(cell) for cell in found] == pytest.approx([float(cell) for cell in expected], rel=1e-3), name


def test_a_range_on_an_axis_of_the_report_chooses_trials(shown, sweep):
    from selenium.webdriver import ActionChains

    result, rows = sweep
    shown.get(result.report.as_uri())
    handles = shown.find_elements("css selector", "#coordinates .handle")
    assert len(handles) == 4  # three hyperparameters and the objective
    assert len(shown.find_elements("css selector", "#trials + .card tbody tr")) == TRIALS
    best = shown.find_element("css selector", "tr.best td").text
    assert best == str(result.best["number"])

    def faded():
        return {row.get_attribute("data-trial") for row in shown.find_elements("css selector", "tr.faded")}

    objective, height = handles[-1], handles[-1].size["height"]
    drag = ActionChains(shown).move_to_element_with_offset(objective, 0, height // 2 - 2).click_and_hold()
    drag.move_by_offset(0, -height // 5).release().perform()  # the lowest fifth of the axis
    values = {row["trial"]: float(row["val_loss"]) for row in rows.values()}
    low, high = min(values.values()), max(values.values())
    shares = {trial: (value - low) / (high - low) for trial, value in values.items()}
    assert best not in faded()
    assert faded() >= {trial for trial, share in shares.items() if share > 0.25} > set()
    assert faded().isdisjoint(trial for trial, share in shares.items() if share < 0.15)
    ActionChains(shown).move_to_element(objective).click().perform()
    assert faded() == set()
    assert [entry["message"] for entry in shown.get_log("browser")] == []
