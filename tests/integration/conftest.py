"""What real processes came to, in whose background all other tests run; and a real browser."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Puts the tests of this folder last: what they look at is acted out meanwhile."""
    items.sort(key=lambda item: HERE in item.path.parents)


@pytest.fixture(scope="session")
def bench():
    """`tools/bench/survival.py`, which compares what runs came to."""
    spec = importlib.util.spec_from_file_location("laboratory_bench", HERE / "laboratory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load_bench()


@pytest.fixture(scope="session")
def laboratory(background, bench):
    """What came of the runs that were killed, asked to stop or damaged, and of those that nobody disturbed."""
    return background.begin(["laboratory"])


@pytest.fixture(scope="session")
def out_of_memory(background):
    """Exit code of a training that ran out of memory, what it said, and what its run.json says."""
    return background.begin(["out_of_memory"]).result("out_of_memory")


@pytest.fixture(scope="session")
def watched_runs(browser, background):
    """A working directory with three runs of an example, for those who look at them in a browser."""
    return background.begin(["watched_runs"]).result("watched_runs")


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
    folder = HERE.parents[1] / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
