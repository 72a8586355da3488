"""Three runs of an example, and a real browser to look at them."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "classification" / "mysettings_digits.py"
WATCHED_RUNS = {
    "narrow": {"hidden_units": 16, "dropout": 0.2, "learning_rate": 0.002, "decay": 0.1},
    "wide": {"hidden_units": 128, "dropout": 0.2, "learning_rate": 0.004, "decay": None},
    "marked": {
        "hidden_units": 64,
        "dropout": 0,
        "learning_rate": 0.002,
        "warmup": "cosine",
        "words": "<script>window.evil = 1</script>",
    },
}
"""Hyperparameters of each run."""


@pytest.fixture(scope="session")
def watched_runs(browser, tmp_path_factory, tensorflow):
    """A working directory with the three runs."""
    from experiments_manager import api

    folder = tmp_path_factory.mktemp("watched")
    for name, hparams in WATCHED_RUNS.items():
        overrides = {"epochs": 2, "embeddings_every": 1, "export": False, "hparams": hparams}
        api.train(DIGITS, overrides=overrides, working_dir=folder, run_name=name, quiet=True)
    return folder


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, one for all tests; WebGL is drawn by the processor. A test begins with `browser.get(url)`.

    Without Chromium the tests that look through it are skipped, but on the build server they fail.
    """
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        reason = f"{' and '.join(missing)} not found; install the Debian packages chromium and chromium-driver"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",  # tests may run as root
        "--disable-dev-shm-usage",  # containers have little of it
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--window-size=1600,1000",
        "--force-device-scale-factor=1",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def screenshots():
    """Folder for what the browser saw, which continuous integration keeps."""
    folder = ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
