"""What the documents name exists: paths, links, commands and their options."""

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from harness.comparison import compose
from tests.places import ROOT

#: the log is not among them: it names things as they were on its day
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "results/measured/README.md",
    *(path for path in sorted(ROOT.glob("docs/**/*.md")) if path.name != "LOG.md"),
]
FOLDERS = ("allocators", "conf", "docs", "harness", "kernels", "results", "tests", "workloads")
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./*-]*\w")
MODULE = re.compile(rf"python3? -m ((?:{'|'.join(FOLDERS)})[\w.]*\w)")
FENCE = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n)+")
SOURCES = [path for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.py")]


def blocks(text):
    """Return the code blocks of a document, and the document without them."""
    found = FENCE.findall(text)
    text = FENCE.sub("", text)
    return found + INDENTED.findall(text), INDENTED.sub("\n", text)


def code(path):
    """Return the lines of code blocks, wrapped ones joined, and the pieces in backticks."""
    found, prose = blocks(path.read_text())
    lines = [line.strip() for block in found for line in block.replace("\\\n", " ").splitlines()]
    return lines + [" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", prose)]


def exists(path):
    """Whether a path is in the repository; what a run writes and DATE, say, are not asked for."""
    written = path.startswith("results/runs") or re.search(r"[A-Z]{3,}(?!\w*\.md)", path)
    return bool(written or any(ROOT.glob(path)))


def runs(module):
    """Whether `python -m module` would run something."""
    place = ROOT.joinpath(*module.split("."))
    file = place.with_suffix(".py")
    return (place / "__main__.py").is_file() or (
        file.is_file() and '"__main__"' in file.read_text()
    )


def headings(path):
    """Return the anchors of a document's headings."""
    titles = re.findall(r"^#+ (.*)$", blocks(path.read_text())[1], re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_links_and_commands_exist(document):
    pieces = code(document)
    names = {path.name for path in SOURCES}
    missing = [path for piece in pieces for path in PATH.findall(piece) if not exists(path)]
    missing += [piece for piece in pieces if re.fullmatch(r"\w+\.py", piece) and piece not in names]
    missing += [module for piece in pieces for module in MODULE.findall(piece) if not runs(module)]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    asked = [target for piece in pieces for target in re.findall(r"^make ([\w-]+)", piece)]
    missing += [f"make {target}" for target in asked if target not in targets]
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        target, _, anchor = link.partition("#")
        if re.match(r"https?:", target):
            continue
        place = document.parent / target if target else document
        if not place.exists() or (anchor and anchor not in headings(place)):
            missing.append(link)
    assert not missing


def test_paths_in_comments_and_docstrings_exist():
    named = re.compile(PATH.pattern + r"\.(?:py|md|yaml|csv|json)\b")
    skipped = {Path(__file__).resolve()}
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        if path not in skipped
        for name in named.findall(path.read_text())
        if not exists(name)
    ]
    assert not missing


def test_the_readme_names_every_command():
    text = (ROOT / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `harness")]
    named = {name for row in rows for name in re.findall(r"`(harness[.\w]*)", row)}
    named |= set(MODULE.findall(text))
    assert [name for name in sorted(named) if not runs(name)] == []
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in ROOT.glob("harness/**/*.py")
        if path.name == "__main__.py" or '__name__ == "__main__"' in path.read_text()
    }
    documented = {
        name for path in DOCUMENTS for piece in code(path) for name in MODULE.findall(piece)
    }
    assert sorted((modules | documented) - named) == []


def comparisons():
    """Return the arguments of every `python -m harness` in the documents; H is short for it.

    `mine` is an allocator that the reader is to write.
    """
    found = []
    for document in DOCUMENTS:
        for piece in code(document):
            command = re.match(r"(?:[$] )?(?:python -m harness|H) (.*)", piece)
            if command and "+workload=" in command[1] and "mine" not in command[1]:
                arguments = shlex.split(command[1].split(" # ")[0])
                kept = [
                    a for a in arguments if a != "-m" and not a.startswith(("hydra.", "hydra/"))
                ]
                found.append(pytest.param(kept, id=f"{document.stem}-{len(found)}"))
    return found


@pytest.mark.parametrize("arguments", comparisons())
def test_documented_options_exist(arguments):
    overrides = OverridesParser.create().parse_overrides(arguments)
    points = [
        f"{o.get_key_element()}={next(o.sweep_string_iterator())}"
        if o.is_sweep_override()
        else o.input_line
        for o in overrides
    ]
    compose(*points)
