"""Tab completion: what is offered, and that bash gets it from the script that is sourced."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.completion import SCRIPT, candidates, choices
from harness.comparison.config import compose, plain_options


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("kv-harness ", ["+workload=", "model=", "engine.", "seed="]),
        ("kv-harness +workload=b", ["+workload=beam "]),
        ("python -m harness hardware=h1", ["hardware=h100-80gb "]),
        ("python -m harness allocator=[paged,v", ["allocator=[paged,virtual"]),
        ("kv-harness -m +workload=beam sampling.wi", ["sampling.width="]),
        ("kv-harness allocators.p", ["allocators.paged."]),
        ("kv-harness allocators.paged.bl", ["allocators.paged.block_size="]),
        ("kv-harness engine.preemption=s", ["engine.preemption=swap "]),
        ("kv-harness allocators.paged.groups=u", ["allocators.paged.groups=uniform "]),
        ("kv-harness allocator='[virtual]' allocators.paged", []),
        ("kv-harness +workload=trace workload.path=", []),
        ("kv-harness --he", ["--help "]),
        ("kv-harness model=nonsense see", ["seed="]),
    ],
)
def test_what_is_offered(line, some):
    found = candidates(line)
    assert set(some) <= set(found)
    if not line.endswith(" "):
        assert found == some


def test_a_chosen_workload_is_not_offered_again():
    assert "+workload=" not in candidates("kv-harness +workload=beam ")


def test_choices_are_of_options_that_there_are():
    def names(tree):
        for name, value in tree.items():
            yield name
            if isinstance(value, dict):
                yield from names(value)

    assert set(choices()) <= set(names(plain_options(compose())))


@pytest.mark.parametrize("command", ["kv-harness", "python -m harness"])
def test_bash_completes_what_stands_behind_the_last_word_break(command, tmp_path):
    """The words are split as readline splits them; it replaces the last of them only."""
    for name, start in (("kv-harness", "-m harness "), ("python", "")):
        file = tmp_path / name
        file.write_text(f'#!/bin/sh\nexec {sys.executable} {start}"$@"\n')
        file.chmod(0o755)
    called = f"{tmp_path}/{command}"
    line = f"{called} +workload=bea"
    script = tmp_path / "complete.bash"
    script.write_text(
        f"{SCRIPT}COMP_LINE='{line}' COMP_POINT={len(line)}\n"
        f"COMP_WORDBREAKS=$' \\t\\n\"\\'><=;|&(:'\n"
        f"COMP_WORDS=({called} +workload = bea)\n"
        "_kv_harness\nprintf '<%s>' \"${COMPREPLY[@]}\"\n"
        "COMP_WORDS=(python -m pytest x) COMPREPLY=()\n"
        "_kv_harness\nprintf '%d' ${#COMPREPLY[@]}\n"
    )
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert done.stdout == "<beam >0", done.stderr


def test_the_command_prints_the_script():
    done = subprocess.run(
        [sys.executable, "-m", "harness", "--completion"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout == SCRIPT
