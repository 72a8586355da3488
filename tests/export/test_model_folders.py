from experiments_manager.export.model_folders import find_target, versions_in


def test_versions_are_folders_that_a_server_would_serve(tmp_path):
    for name in ("1", "12", "007", "²", "٣", "-4", "latest", "99999999999999999999"):
        (tmp_path / name).mkdir()
    (tmp_path / "5").write_text("a file")
    assert versions_in(tmp_path) == [1, 7, 12]
    assert versions_in(tmp_path / "none") == []


def test_a_folder_beside_versions_may_have_any_name(tmp_path):
    for name in ("3", "²"):
        (tmp_path / name).mkdir()
    assert find_target(tmp_path).base_path == tmp_path
