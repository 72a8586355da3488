"""TensorBoard as the command `board` starts it, and its pages in a real browser."""

import contextlib
import os
import re
import subprocess
import sys


@contextlib.contextmanager
def open_board(folder, *options, env=None):
    """Starts the command on a folder of runs, and ends it; gives the process, and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments_manager", "board", str(folder), *options],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | (env or {}),
    )
    with process:
        line = process.stdout.readline()
        try:
            yield process, re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        finally:
            process.terminate()
            process.wait(60)


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
