from experiments_manager.export.versions import prune, versions


def test_versions_are_folders_with_whole_numbers_for_names(tmp_path):
    for name in ("10", "9", "²", "٣", "-4", ".stage-11"):
        (tmp_path / name).mkdir()
    (tmp_path / "5").write_text("a file")
    assert versions(tmp_path) == [9, 10]
    prune(tmp_path, 1)
    assert versions(tmp_path) == [10]
