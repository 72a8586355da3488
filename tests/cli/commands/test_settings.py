from typer.testing import CliRunner

from experiments_manager.cli.main import app, run


def explained(*name):
    return CliRunner().invoke(app, ["settings", *name]).stdout


def test_the_whole_reference_has_settings_hooks_and_parameters():
    output = explained()
    for heading in ("Experiment", "Hooks", "Parameters that every hook may ask for"):
        assert f"\n{heading}\n" in f"\n{output}"
    assert "  batch_size = 32\n" in output


def test_one_setting_is_explained_by_its_earlier_name_too():
    assert explained("nbEpoch") == explained("epochs")
    assert explained("epochs").startswith("epochs = ")
    assert "Legacy name: nbEpoch." in " ".join(explained("epochs").split())  # lines are as long as the terminal


def test_a_hook_says_what_it_may_ask_for():
    output = explained("optimizer")
    assert output.startswith("optimizer(…)\n")
    assert "learning_rate" in output.partition("Asks for: ")[2]


def test_an_unknown_name_is_bad_input_and_the_nearest_is_named(capsys):
    assert run(["settings", "batchsize"]) == 2
    assert "Did you mean `batch_size`?" in capsys.readouterr().err
