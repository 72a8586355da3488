"""The HTML page about a run, or about a folder of runs."""

import html.parser
import re
import time

import pytest

from experiments_manager.monitoring.report import write_report
from experiments_manager.monitoring.report.page import COLOURED, WITH_FIGURES
from experiments_manager.runs import RunError


class Page(html.parser.HTMLParser):
    """What a browser makes of a page: its text, and every address in it."""

    VOID = {"meta", "img", "br", "link", "input", "hr"}

    def __init__(self, source):
        super().__init__()
        self.source, self.texts, self.addresses, self.tags, self.open = source, [], [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.texts += [data.strip()] if data.strip() else []

    @property
    def text(self):
        return "\n".join(self.texts)

    def table(self, number=0):
        """A table of runs, the first by default: cells of each row by the head of their column."""
        table = re.findall(r'<table class="runs sortable">(.*?)</table>', self.source, re.DOTALL)[number]
        rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
        cells = [[re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]
        return [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]


@pytest.fixture
def page():
    """Writes the report on a place and reads it again."""

    def write(place, output=None):
        return Page(write_report(place, output).read_text(encoding="utf-8"))

    return write


def test_a_run_shows_how_it_ended_its_settings_curves_and_figures(make_run, page):
    run = make_run(
        "a",
        hparams={"units": 10, "rate": 0.1, "nothing": None},
        settings={"batch_size": 7},
        figures=["predictions", "learning_curves"],
        git={"commit": "abc123", "dirty": True, "branch": "trunk", "untracked": ["x.py"]},
        host={"name": "thinker"},
        command=["em", "train", "a b.py"],
        last_version=50,
    )
    run.git_diff.write_text("-old <line>\n+new\n")
    seen = page(run.path)
    for text in ("demo", "finished", "best val_loss, epoch 5", "units", "None", "batch_size", "32"):
        assert text in seen.texts
    for text in ("abc123", "uncommitted", "x.py", "thinker", "em train 'a b.py'", "keras 3.15", "-old <line>"):
        assert text in seen.text
    assert seen.tags.count("svg") == 2  # loss and learning rate
    assert [address for address in seen.addresses if address.startswith("data:image/png")] != []
    assert seen.tags.count("img") == 1  # the page draws the learning curves itself
    assert (run.path / "report.html").is_file()


def test_runs_stand_in_one_table_with_what_differs_between_them(make_run, page, tmp_path):
    make_run("a", loss=0.5, hparams={"units": 10, "same": 1})
    make_run("bb", loss=0.25, hparams={"units": 20, "same": 1, "new": "x"}, settings={"batch_size": 64})
    make_run("ccc", loss=0.75, hparams={"units": None, "same": 1}, metrics=("loss", "accuracy"))
    rows = page(tmp_path / "runs").table()
    assert [row["run"] for row in rows] == ["a A", "bb B", "ccc C"]
    assert [row["val_loss"] for row in rows] == ["0.5", "0.25", "0.75"]
    assert [row["units"] for row in rows] == ["10", "20", "None"]
    assert [row["new"] for row in rows] == ["—", "x", "—"]
    assert [row["batch_size"] for row in rows] == ["32", "64", "32"]
    assert [row["val_accuracy"] for row in rows] == ["—", "—", "0.75"]
    assert "same" not in rows[0]
    assert "epochs" in rows[0]


@pytest.mark.parametrize(("monitor", "best"), [("val_loss", "a"), ("val_accuracy", "bb")])
def test_the_best_run_is_the_lowest_or_the_highest_by_what_is_watched(make_run, page, tmp_path, monitor, best):
    for name, value in (("a", 0.25), ("bb", 0.5)):
        watched = {"epoch": 5, "step": 50, "value": value, "name": monitor}
        make_run(name, loss=value, best=watched, metrics=("loss", "accuracy"))
    seen = page(tmp_path / "runs")
    assert seen.texts[seen.texts.index(f"best {monitor},") + 1] == best


def test_runs_of_unlike_experiments_are_compared_with_their_own_alone(make_run, page, tmp_path):
    make_run("a", loss=0.5, hparams={"units": 10}, settings={"session_name": "curve"})
    make_run("bb", loss=0.25, hparams={"units": 20}, settings={"session_name": "curve"})
    make_run(
        "ccc", loss=0.01, hparams={"filters": 8}, settings={"session_name": "digits"}, metrics=("loss", "accuracy")
    )
    seen = page(tmp_path / "runs")
    curve, digits = seen.table(), seen.table(1)
    assert [row["run"] for row in curve] == ["a A", "bb B"]
    assert [row["run"] for row in digits] == ["ccc C"]
    assert "filters" not in curve[0]
    assert "val_accuracy" not in curve[0]
    assert "units" not in digits[0]
    assert re.findall(r"<h2 class=\"experiment\">(.*?)</h2>", seen.source) == ["curve", "digits"]
    assert [text for text in seen.texts if text.startswith("best val_loss of")] == [
        "best val_loss of curve,",
        "best val_loss of digits,",
    ]
    assert "units=20" in seen.texts


def test_runs_that_failed_were_killed_or_are_damaged_are_shown_as_such(make_run, page, tmp_path):
    error = {"type": "ZeroDivisionError", "text": "model.py:3: division by zero", "place": "model.py:3"}
    failed = make_run("a", state="failed", epochs=0, error=error)
    make_run("bb", state="interrupted", epochs=2)
    make_run("ccc", state="running", epochs=3)
    damaged = make_run("dddd")
    damaged.manifest_file.write_text("{")
    seen = page(tmp_path / "runs")
    states = {row["run"]: row["state"] for row in [*seen.table(), *seen.table(1)]}
    assert states == {"a A": "failed", "bb B": "interrupted", "ccc C": "killed", "dddd D": "unreadable"}
    assert "Runs that cannot be read" in seen.texts
    assert "ZeroDivisionError: model.py:3: division by zero" in seen.texts
    assert "is damaged" in seen.text
    assert "ZeroDivisionError: model.py:3: division by zero" in page(failed.path).texts
    assert "No epoch is finished yet." in page(failed.path).texts


def test_a_run_that_is_going_on_is_shown_as_such(make_run, page, tmp_path):
    from experiments_manager.runs import lock

    run = make_run("a", state="running", epochs=3, best=None)
    with lock(run):
        seen = page(run.path)
    assert "running" in seen.texts
    assert seen.tags.count("svg") == 2


def test_everything_from_a_run_is_text_and_nothing_else(make_run, page, tmp_path):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    fields = {
        "hparams": {"note": evil, evil: 1},
        "settings": {"session_name": evil, "class_names": [evil]},
        "error": {"type": evil, "text": evil, "place": None},
        "git": {"commit": evil, "dirty": True, "branch": evil, "untracked": [evil]},
        "host": {evil: evil},
        "packages": {evil: evil},
        "command": [evil],
        "devices": [evil],
    }
    one = make_run("a", state="failed", metrics=("loss", "<i>x</i>"), **fields)
    one.git_diff.write_text(evil)
    make_run("bb", hparams={"note": 1})
    for place in (one.path, tmp_path / "runs"):
        seen = page(place)
        assert seen.tags.count("script") == 1
        assert "img" not in seen.tags
        assert "i" not in seen.tags
        assert evil in seen.text


def test_the_page_loads_nothing_from_elsewhere(make_run, page):
    seen = page(make_run("a", figures=["predictions"]).path)
    inside = [address for address in seen.addresses if not address.startswith(("#", "data:"))]
    assert inside == []
    assert "@import" not in seen.source
    assert not re.search(r"url\((?!#)", seen.source)
    assert "default-src 'none'" in seen.source


def test_of_many_runs_the_best_have_colours_and_figures(make_run, page, tmp_path):
    for number in range(COLOURED + 2):
        make_run(f"run_{number:02d}", loss=1.0 + number, hparams={"n": number}, figures=["predictions"])
    seen = page(tmp_path / "runs")
    assert f"The {COLOURED} best runs have colours, the others are grey." in seen.text
    assert seen.tags.count("img") == WITH_FIGURES
    assert "Its 1 figures are in" in seen.text


def test_a_hundred_runs_make_a_page_of_a_few_megabytes_in_a_few_seconds(make_run, page, tmp_path):
    for number in range(100):
        make_run(f"run_{number:03d}", loss=1.0 + number, hparams={"n": number}, figures=["predictions"])
    begun = time.process_time()
    seen = page(tmp_path / "runs")
    assert time.process_time() - begun < 5  # of the processor, so that a busy machine does not count
    assert len(seen.table()) == 100
    assert len(seen.source) < 3_000_000


def test_the_page_goes_where_it_is_told_to_and_folders_are_made(make_run, page, tmp_path):
    page(make_run("a").path, tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").is_file()
    assert not (tmp_path / "runs" / "a" / "report.html").exists()


def test_something_inside_of_a_run_names_the_run(make_run, page):
    run = make_run("a")
    page(run.metrics_csv)
    assert (run.path / "report.html").is_file()


def test_a_folder_without_runs_is_an_error(tmp_path):
    with pytest.raises(RunError, match="is no run folder"):
        write_report(tmp_path)
    with pytest.raises(RunError, match="There is no run folder"):
        write_report(tmp_path / "missing")


def test_a_report_can_be_written_again_and_in_the_folder_of_a_run_it_is_no_run(make_run, page, tmp_path):
    make_run("a")
    assert page(tmp_path / "runs").texts[0] == page(tmp_path / "runs").texts[0]


def test_folders_may_have_names_that_are_no_text(make_run, tmp_path):
    make_run("other")
    make_run("cafe").path.rename(tmp_path / "runs" / "caf\udce9")
    for place in (tmp_path / "runs", tmp_path / "runs" / "caf\udce9"):
        assert r"caf\udce9" in write_report(place).read_text(encoding="utf-8")
