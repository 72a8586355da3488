"""Three runs of an example, and what a researcher sees of them in TensorBoard."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

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
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments_manager", "board", str(watched_runs), "--open"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PATH": "/usr/bin:/bin", "BROWSER": str(chosen)},  # no `tensorboard` on the path
    )
    with process:
        line = process.stdout.readline()
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
            wait_until(lambda: has_read_all(address))
            yield process, address
        finally:
            process.terminate()
            process.wait(60)


def wait_until(condition, seconds=120):
    """Waits until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


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


class Page:
    """A page of TensorBoard, which is made of elements inside of elements' shadows."""

    FIND = """
        const found = [];
        (function walk(root) {
            for (const element of root.querySelectorAll("*")) {
                if (element.matches(arguments[1])) found.push(element);
                if (element.shadowRoot) walk(element.shadowRoot, arguments[1]);
            }
        })(document, arguments[0]);
        return found;
    """

    def __init__(self, browser, address):
        self.browser, self.address = browser, address

    def open(self, name):
        self.browser.switch_to.default_content()
        self.browser.get("about:blank")
        self.browser.get(f"{self.address}#{name}")

    def wait(self, condition, seconds=120):
        """Waits until the condition gives something true, and gives it."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.browser, seconds, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: condition())

    def elements(self, selector):
        return [element for element in self.browser.execute_script(self.FIND, selector) if element.is_displayed()]

    def element(self, selector, text=""):
        """Waits for an element that is shown, has a size and holds the text."""

        def find():
            found = [one for one in self.elements(selector) if text in one.text and one.size["height"] > 0]
            return found[0] if found else None

        return self.wait(find)

    def click(self, selector, text=""):
        """Clicks on an element, once nothing lies over it any more, as while a menu unfolds."""
        from selenium.common.exceptions import ElementClickInterceptedException, ElementNotInteractableException

        def clicked():
            try:
                self.element(selector, text).click()
            except (ElementClickInterceptedException, ElementNotInteractableException):
                return False
            return True

        self.wait(clicked)

    def enter_frame(self):
        self.browser.switch_to.frame(self.element("iframe"))


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
