import pytest

from experiments_manager.common.checksums import CHECKSUMS, DamagedError, verify_checksums, write_checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "variables" / "weights.bin").write_bytes(bytes(range(256)) * 16)
    write_checksums(tmp_path)
    return tmp_path


def test_an_intact_folder_passes(folder):
    assert verify_checksums(folder) is None


def test_a_file_that_came_later_does_not_matter(folder):
    (folder / "note.txt").touch()
    assert verify_checksums(folder) is None


def test_a_flipped_bit_is_found_and_the_file_named(folder):
    file = folder / "variables" / "weights.bin"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedError, match=r"weights\.bin is damaged\. Expected SHA-256") as error:
        verify_checksums(folder)
    assert error.value.file == file


def test_a_truncated_file_is_named_with_its_sizes(folder):
    (folder / "variables" / "weights.bin").write_bytes(b"short")
    with pytest.raises(DamagedError, match=r"weights\.bin is truncated\. Expected 4096 bytes, got 5\."):
        verify_checksums(folder)


def test_a_file_that_has_grown_is_named(folder):
    (folder / "state.json").write_text("{}  ")
    with pytest.raises(DamagedError, match=r"state\.json has grown\. Expected 2 bytes, got 4\."):
        verify_checksums(folder)


def test_a_missing_file_is_named(folder):
    (folder / "state.json").unlink()
    with pytest.raises(DamagedError, match=r"state\.json is missing\."):
        verify_checksums(folder)


def test_a_folder_without_checksums_fails(folder):
    (folder / CHECKSUMS).unlink()
    with pytest.raises(DamagedError, match=r"checksums\.json is missing\."):
        verify_checksums(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', '{"files": {"a": {"size": null}}}', "\udcff"])
def test_damaged_checksums_fail(folder, text):
    (folder / CHECKSUMS).write_text(text, errors="surrogateescape")
    with pytest.raises(DamagedError, match=r"checksums\.json is damaged"):
        verify_checksums(folder)
