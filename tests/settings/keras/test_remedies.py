import pytest

from experiments_manager.settings import UserCodeError, load_settings
from experiments_manager.settings.keras.remedies import keras_remedy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("keras.metrics.Metric('confusion')", "`dtype` in Keras 3.*`super\\(\\).__init__\\(name=…\\)`"),
        ("keras.optimizers.Adam(**{'lr': 0.1})", "Write `learning_rate=`"),
        (
            "keras.saving.deserialize_keras_object("
            "{'class_name': 'A', 'config': {}, 'module': None, 'registered_name': 'A'})",
            "at the top level of the file",
        ),
    ],
)
def test_what_keras_does_not_say_is_said_at_the_line(write, tensorflow, line, remedy):
    settings = load_settings(write(f"import keras\ndef metrics():\n    return {line}\n"))
    with pytest.raises(UserCodeError, match=rf"(?s)mysettings_case.py:3: metrics: .*{remedy}"):
        settings.resolve("metrics")


def test_other_messages_stay_as_they_are():
    assert keras_remedy(ValueError("odd")) is None
