from pathlib import Path

from experiments_manager.export.versions import prune, versions


def test_versions_are_folders_with_whole_numbers_for_names(tmp_path):
    for name in ("10", "9", "²", "٣", "-4", ".stage-11"):
        (tmp_path / name).mkdir()
    (tmp_path / "5").write_text("a file")
    assert versions(tmp_path) == [9, 10]
    prune(tmp_path, 1)
    assert versions(tmp_path) == [10]


def test_a_version_that_cannot_be_removed_keeps_no_other_from_being_removed(tmp_path, monkeypatch, caplog):
    for name in ("007", "8", "9", "10"):
        (tmp_path / name).mkdir()
    rename = Path.rename

    def refuse(self, target):
        if self.name == "8":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    prune(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["007", "10", "8"]
    assert "Version 8 in" in caplog.text
