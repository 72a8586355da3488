"""Waiting for what has no event of its own."""

import time


def wait_until(condition, seconds=60.0):
    """Waits until something is so, asking again and again; fails after so many seconds, and gives what was found."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it did not come within {seconds} s"
        time.sleep(0.005)
    return found
