"""Allocators of installed packages are offered where the own ones are."""

from importlib.metadata import EntryPoint

import pytest

from harness.cli import installed
from harness.cli.help import options, print_help


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    folder = tmp_path / "plugin_of_a_test" / "conf" / "allocator"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package allocators.mine\n_target_: x.Y\n")
    (folder.parents[1] / "__init__.py").touch()
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = [
        EntryPoint("mine", "plugin_of_a_test.alloc:Mine", installed.ENTRY_POINTS),
        EntryPoint("gone", "no_such_package.alloc:Mine", installed.ENTRY_POINTS),
        EntryPoint("paged", "allocators.paged:Paged", installed.ENTRY_POINTS),
    ]
    monkeypatch.setattr(installed, "entry_points", lambda group: entries)


def test_an_installed_allocator_is_in_the_help_and_on_the_search_path(plug_in, capsys):
    assert "mine" in options("allocator")
    assert "mine" not in options("engine")
    print_help()
    offered = capsys.readouterr().out.split("allocator='[A,B]'")[1].split("allocators.NAME")[0]
    assert "mine" in offered
    assert installed.search_path_override([]) == ["hydra.searchpath=[pkg://plugin_of_a_test.conf]"]
    assert not installed.search_path_override(["hydra.searchpath=[]"])
