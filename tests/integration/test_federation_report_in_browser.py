"""The report on a federation of a hundred clients, as it is seen when opened from the disk."""

import math

import pytest

from experiments_manager import api
from experiments_manager.monitoring.growing_csv import GrowingCsv
from experiments_manager.monitoring.metrics_csv import metrics_row
from experiments_manager.runs import create_run

pytestmark = pytest.mark.slow
CLIENTS, ROUNDS = 100, 12


@pytest.fixture
def federation(tmp_path):
    """The folder of a federation whose client 3 is left out from round 5 on."""
    run = create_run(tmp_path, "digits", run_name="federation")
    run.update(state="finished", federation={"kind": "simulation", "clients": CLIENTS, "strategy": "ClusteredSpectral"})
    metrics, clients = GrowingCsv(run.metrics_csv, "epoch"), GrowingCsv(run.path / "clients.csv", "round")
    for number in range(1, ROUNDS + 1):
        loss, out = math.exp(-number / 5), number >= 5
        values = {"loss": loss, "val_loss": loss, "participants": CLIENTS - out, "left_out": out}
        metrics.append([metrics_row(number, number, {**values, "bytes_sent": 1e6, "bytes_received": 9e5})])
        clients.append([row(number, client, loss) for client in range(CLIENTS)])
    metrics.close()
    clients.close()
    return run.path


def row(number, client, loss):
    told = {"round": str(number), "client": str(client)}
    if client == 3 and number >= 5:
        return {**told, "took_part": "0", "left_out": "It did not answer within 30 s."}
    return {**told, "took_part": "1", "left_out": "", "loss": repr(loss * (1 + client / 50))}


@pytest.mark.parametrize("width", [1280, 480])
def test_the_page_fits_the_window_and_has_no_error(browser, federation, screenshots, width):
    before = browser.get_window_size()
    browser.get_log("browser")
    browser.set_window_size(width, 1600)
    browser.get(api.report(federation).as_uri())
    page = browser.find_element("css selector", "main")
    chart = page.find_element("css selector", ".map svg")
    browser.execute_script("arguments[0].scrollIntoView()", chart)
    browser.save_screenshot(str(screenshots / f"federation_{width}.png"))
    assert chart.size["width"] > 0.8 * (min(width, 1180) - 80)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    cells = [cell.text for cell in page.find_elements("css selector", "table.left-out td")]
    assert cells == ["3", "8", "5 to 12", "It did not answer within 30 s."]
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    browser.set_window_size(before["width"], before["height"])
    browser.get("about:blank")
