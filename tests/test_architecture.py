"""Imports go down only: the contracts of pyproject.toml, checked by import-linter."""

import re
import sys
import tomllib

from importlinter.cli import lint_imports

from tests.places import ROOT


def test_imports_keep_to_the_contracts(monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path])  # the linter puts its folder in front
    broken = lint_imports(str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert not broken, capsys.readouterr().out


def test_every_room_has_its_floor():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (floors,) = [c["layers"] for c in settings["contracts"] if c["type"] == "layers"]
    named = {room for floor in floors for room in re.split(r"\s*[:|]\s*", floor)}
    files = {p.parent for p in (ROOT / "harness").glob("*/*.py")} | {*ROOT.glob("harness/*.py")}
    rooms = {f"harness.{path.stem}" for path in files if path.name != "__init__.py"}
    assert named == {*rooms, *settings["root_packages"]} - {"harness"}
