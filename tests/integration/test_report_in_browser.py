"""The HTML report on three runs of an example, as a researcher sees it when opened from the disk."""

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def opened(browser, watched_runs, screenshots, request):
    """Writes the report on a place below the runs and opens it; what is seen at the end is kept."""
    from experiments_manager import api

    def open_report(place=""):
        browser.get_log("browser")  # what pages before this one had to say
        browser.get(api.report(watched_runs / place).as_uri())
        return browser

    yield open_report
    browser.save_screenshot(str(screenshots / f"{request.node.name.removeprefix('test_')}.png"))
    browser.get("about:blank")  # or it goes on drawing beside other tests


@pytest.fixture
def window(browser):
    """Sets the size of the window, and puts it back."""
    before = browser.get_window_size()
    yield browser.set_window_size
    browser.set_window_size(before["width"], before["height"])


@pytest.fixture
def darkness(browser):
    """A screen that prefers dark pages."""
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    yield
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def texts(browser, selector):
    return [element.text for element in browser.find_elements("css selector", selector)]


def problems(browser):
    return [entry["message"] for entry in browser.get_log("browser")]


def test_the_report_shows_all_runs_and_their_curves(opened):
    browser = opened()
    rows = texts(browser, "table.runs tbody tr")
    assert len(rows) == 3
    assert all("finished" in row for row in rows)
    assert {"hidden_units", "dropout", "words", "val_loss", "val_accuracy"} <= {*texts(browser, "table.runs th")}
    charts = browser.find_elements("css selector", ".charts svg")
    assert [chart.get_attribute("aria-label") for chart in charts] == ["loss", "accuracy"]
    assert all(chart.size["height"] > 150 for chart in charts)
    assert browser.execute_script("return window.evil") is None
    assert "<script>window.evil = 1</script>" in browser.find_element("css selector", "main").text
    assert problems(browser) == []


def test_a_click_on_a_head_sorts_the_report(opened):
    browser = opened()
    heads = browser.find_elements("css selector", "table.runs th button")
    (head,) = [head for head in heads if head.text == "hidden_units"]
    column = texts(browser, "table.runs th").index("hidden_units") + 1
    for expected in (["16", "64", "128"], ["128", "64", "16"]):
        head.click()
        assert texts(browser, f"table.runs tbody td:nth-child({column})") == expected


def test_pointing_at_a_row_of_the_report_shows_its_curves(opened):
    from selenium.webdriver import ActionChains

    browser = opened()
    row = browser.find_element("css selector", "tr[data-run=run-B]")
    ActionChains(browser).move_to_element(row).perform()
    assert browser.execute_script("return document.body.classList.contains('choosing')")
    chosen = browser.find_elements("css selector", ".curve.chosen")
    assert chosen
    assert {element.get_attribute("class") for element in chosen} == {"curve run-B chosen"}


def test_a_link_in_the_report_unfolds_a_run_with_its_figures(opened):
    from selenium.webdriver.support.ui import WebDriverWait

    browser = opened()
    browser.find_element("css selector", "table.runs a[href='#run-C']").click()
    section = browser.find_element("css selector", "#run-C")
    WebDriverWait(browser, 10).until(lambda _: section.get_attribute("open"))
    images = section.find_elements("css selector", "img")
    shown = {image.get_attribute("alt"): image for image in images}
    assert {"confusion matrix", "confusion matrix normalised", "predictions"} <= shown.keys()
    assert all(browser.execute_script("return arguments[0].naturalWidth", image) > 300 for image in images)


def test_the_report_on_one_run_can_be_read_on_a_phone(window, opened):
    window(500, 900)
    browser = opened("wide")
    assert "best val_loss" in browser.find_element("css selector", ".tiles").text
    assert len(browser.find_elements("css selector", ".charts svg")) == 3
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert problems(browser) == []


def test_the_report_follows_a_dark_screen(darkness, opened):
    browser = opened()
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    ink = browser.execute_script("return getComputedStyle(document.querySelector('.charts svg text')).fill")
    assert (paper, ink) == ("rgb(20, 23, 28)", "rgb(230, 233, 239)")


LONG = "/data/projects/" + "a_folder_of_measurements_with_a_long_name/" * 4 + "file_without_any_blank_in_it.tfrecord"


@pytest.fixture
def run_with_long_values(tmp_path):
    """A run whose settings, hparams and metrics have long names and values."""
    from experiments_manager.runs import create_run
    from experiments_manager.settings.schema import SETTINGS

    hparams = {"a_hyperparameter_with_quite_a_long_name": LONG, "units": 3}
    run = create_run(tmp_path / "runs", "demo", hparams, run_name="demo_with_" + "a_long_name_" * 8)
    settings = {name: entry.default for name, entry in SETTINGS.items()} | {"session_name": "demo", "hparams": hparams}
    settings |= {"train_data_dir": LONG, "working_dir": LONG, "class_names": [f"class_{n}" for n in range(40)]}
    settings |= {
        "federated_learning_server_address": LONG,
        "early_stopping_min_delta": 0.25,
        "kafka_bootstrap_servers": [],
    }
    host = {"name": "a-machine-with-a-long-name." * 4, "system": "Linux", "processor": LONG}
    run.update(state="finished", hparams=hparams, settings=settings, host=host, packages={}, command=["em", LONG])
    names = ["loss", "val_loss", "a_metric_with_quite_a_long_name_of_its_own"]
    run.metrics_csv.write_text(f"epoch,step,learning_rate,{','.join(names)}\n1,10,0.1,0.123456789,1e-12,3\n")
    return run


OVERFLOWING = """
    const wide = [...document.querySelectorAll(".card, .tile, .path, pre.command, td, th, details, main")];
    return wide.filter(box => box.offsetParent && box.scrollWidth > box.clientWidth + 1).map(box => box.outerHTML);
"""
"""Boxes of the page whose content is wider than they are."""

OUTSIDE = """
    const cells = [...document.querySelectorAll(".card td, .card th")].filter(cell => cell.offsetParent);
    const right = cell => cell.closest(".card").getBoundingClientRect().right;
    return cells.filter(cell => cell.getBoundingClientRect().right > right(cell)).map(cell => cell.innerText);
"""
"""Cells that are not within their card."""


@pytest.mark.parametrize("width", [1300, 700, 400])
def test_long_settings_stay_within_their_card_in_the_report(window, browser, screenshots, run_with_long_values, width):
    from experiments_manager import api

    window(width, 1000)
    browser.get(api.report(run_with_long_values).as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(part => part.open = true)")
    (table,) = (part for part in browser.find_elements("css selector", "section") if "default" in part.text)
    browser.execute_script("arguments[0].scrollIntoView()", table)
    browser.save_screenshot(str(screenshots / f"long_settings_at_{width}.png"))
    assert browser.execute_script(OVERFLOWING) == []
    assert browser.execute_script(OUTSIDE) == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    heads = [head for head in table.find_elements("css selector", "thead th") if head.text in ("value", "default")]
    assert [head.text for head in heads] == ["value", "default"]
    assert all(head.size["width"] > 0.15 * table.size["width"] for head in heads)
