"""Three runs of an example, and what a researcher sees of them in TensorBoard."""

import io
import json
import signal
import urllib.request

import numpy as np
import pytest
from PIL import Image

from tests.helpers.boards import Page, open_board
from tests.helpers.waiting import wait_until

NAMES = ("marked", "narrow", "wide")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Where the browser that a user has chosen notes what it was opened with."""
    return tmp_path_factory.mktemp("opened")


@pytest.fixture(scope="module")
def board(watched_runs, opened):
    """The command, and the address that it prints."""
    chosen = opened / "browser"
    chosen.write_text(f'#!/bin/sh\necho "$1" > {opened}/address\n', encoding="utf-8")
    chosen.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "BROWSER": str(chosen)}  # no `tensorboard` on the path
    with open_board(watched_runs, "--open", env=environment) as (process, address):
        wait_until(lambda: has_read_all(address), 120)
        yield process, address


def has_read_all(address):
    """Whether TensorBoard has read all runs to their end: pages that are open show what comes later much later."""

    def tags(page):
        with urllib.request.urlopen(f"{address}data/plugin/{page}/tags", timeout=60) as answer:
            return json.load(answer)

    scalars, texts = tags("scalars"), tags("text")
    return all(
        "loss" in scalars.get(f"{name}/logs/train", ())
        and "best/loss" in scalars.get(f"{name}/logs/validation", ())
        and f"{name}/logs" in texts
        for name in NAMES
    )


@pytest.fixture
def page(browser, board, screenshots, request):
    """Opens a page of TensorBoard; what was seen at the end is kept."""
    yield Page(browser, board[1])
    browser.switch_to.default_content()
    browser.save_screenshot(str(screenshots / f"{request.node.name.removeprefix('test_')}.png"))
    browser.get("about:blank")  # or it goes on drawing beside other tests


def hues(element, least_pixels=25):
    """How many of twelve hues stand out in what an element looks like."""
    pixels = np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("HSV")).reshape(-1, 3)
    vivid = pixels[(pixels[:, 1] > 100) & (pixels[:, 2] > 60)]
    return int((np.bincount(vivid[:, 0].astype(int) * 12 // 256, minlength=12) >= least_pixels).sum())


def test_scalars_of_all_runs_share_a_chart(page):
    page.open("timeseries")
    page.element("input[placeholder^='Filter tags']").send_keys("^loss$")
    card = page.wait(lambda: [card for card in page.elements("scalar-card") if card.text.startswith("loss")])[0]
    page.wait(lambda: all(f"{name}/logs/{split}" in card.text for name in NAMES for split in ("train", "validation")))
    assert page.wait(lambda: hues(card) >= 3)  # a curve each, in colours of their own


def test_hparams_of_all_runs_stand_in_one_table(page):
    page.open("hparams")
    columns = {"decay", "hidden_units", "warmup", "validation.loss", "validation.best/loss"}

    def table():
        rows = [row.text.splitlines() for row in page.elements("tr")]
        rows = [row for row in rows if row]
        return rows if len(rows) > len(NAMES) and columns <= {*rows[0]} else None

    _, *rows = page.wait(table)
    assert sorted(row[0] for row in rows) == sorted(NAMES)
    cells = {row[0]: row for row in rows}
    assert "None" in cells["wide"]
    assert "0.1" in cells["narrow"]  # as text, since the same hyperparameter is None in another run
    assert "cosine" in cells["marked"]
    assert page.element("tf-hparams-query-pane", "Number of matching session groups: 3")


def test_the_projector_shows_coloured_points(page):
    page.open("projector")
    page.enter_frame()
    page.enter_frame()
    page.element("body", "Points: 180")
    assert page.element("vz-projector-data-panel", "3 runs found")
    # Outputs and features, of the best and of the newest epoch.
    assert page.element("vz-projector-data-panel", "4 tensors found")
    assert page.element("vz-projector-data-panel", "1. dense_1, epoch 2, best")  # the first one by name is shown
    assert page.element("body", "Dimension: 64")
    canvas = page.element("vz-projector canvas, canvas")
    plain = hues(canvas)  # those of the axes
    page.click("#colorby")
    page.click("#colorby paper-item, paper-item", "10 colors")
    page.wait(lambda: hues(canvas) >= max(6, plain + 3))  # ten digits have ten colours


def test_the_board_opens_the_browser_that_the_user_has_chosen(board, opened):
    noted = opened / "address"
    wait_until(lambda: noted.exists() and noted.read_text())  # it is opened once the address is printed
    assert noted.read_text().strip() == board[1]


def test_ctrl_c_ends_the_board_and_nothing_is_left(board):
    process, address = board
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=5)
