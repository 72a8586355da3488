"""What is written past Python is sent elsewhere, and comes back."""

import os

import pytest

from experiments_manager.common.machine.redirection import errors_held_back, redirected


def test_outputs_go_to_a_file_inside_and_to_where_they_went_before_after_it(tmp_path, capfd):
    with (tmp_path / "log").open("wb") as log, redirected(log.fileno()):
        os.write(1, b"out")
        os.write(2, b"err")
    os.write(1, b"after")
    assert (tmp_path / "log").read_bytes() == b"outerr"
    assert capfd.readouterr() == ("after", "")


@pytest.mark.parametrize(("asked", "shown"), [(False, ""), (True, "loading")])
def test_what_is_held_back_is_shown_where_it_is_asked_for(capfd, asked, shown):
    with errors_held_back(lambda: asked):
        os.write(2, b"loading")
    assert capfd.readouterr().err == shown


@pytest.mark.parametrize(("raised", "shown"), [(ImportError, "loading"), (KeyboardInterrupt, "")])
def test_what_is_held_back_is_shown_where_the_block_fails_and_not_where_somebody_stops_it(capfd, raised, shown):
    with pytest.raises(raised), errors_held_back():
        os.write(2, b"loading")
        raise raised
    assert capfd.readouterr().err == shown
