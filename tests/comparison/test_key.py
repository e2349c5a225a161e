"""Keys: the files that an option names are in them, and nothing else that lies about."""

from contextlib import chdir

from harness.comparison.key import options_key


def test_an_empty_path_names_no_file(tmp_path):
    """As a path it would be the working directory, whose files come and go."""
    options = {"workload": {"path": ""}, "model": {"path": None}}
    with chdir(tmp_path):
        before = options_key(options)
        (tmp_path / "other").write_text("1")
        assert options_key(options) == before


def test_a_file_that_is_named_is_known_by_its_content(tmp_path):
    file = tmp_path / "trace.csv"
    file.write_text("1")
    options = {"workload": {"path": str(file)}}
    before = options_key(options)
    file.write_text("22")
    assert options_key(options) != before
