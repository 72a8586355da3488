import resource
import subprocess
import sys

SLOW = ("tensorflow", "keras", "numpy", "matplotlib", "pandas")


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def seconds_of_processor():
    """What processes that were waited for have used of it, which is the same on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_file_is_loaded_and_described_without_tensorflow(write):
    path = write("epochs = 3\n")
    out = run(
        "import sys\n"
        "from experiments_manager.settings import check_source, load_settings\n"
        "from experiments_manager.settings.reference import markdown\n"
        f"assert check_source({str(path)!r}) == []\n"
        f"assert load_settings({str(path)!r}, ['epochs=4']).epochs == 4\n"
        "assert markdown()\n"
        f"print([name for name in {SLOW!r} if name in sys.modules])\n"
    )
    assert out.strip() == "[]"


def test_a_broken_file_that_imports_tensorflow_is_refused_without_it(write):
    path = write("import tensorflow as tf\nbatchsize = 3\n")
    before = seconds_of_processor()
    out = run(
        "import sys\n"
        "from experiments_manager.settings import SettingsError, load_settings\n"
        f"try:\n    load_settings({str(path)!r})\n"
        "except SettingsError as error:\n    print(len(error.problems), 'tensorflow' in sys.modules)\n"
    )
    assert out.strip() == "1 False"
    assert seconds_of_processor() - before < 3.0  # half a second; TensorFlow alone takes more
