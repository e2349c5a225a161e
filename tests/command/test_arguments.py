"""Options of the small commands: what is wrong is one line that says what is allowed."""

from dataclasses import dataclass, field

import pytest

from harness.command.arguments import parse_options
from harness.command.folder import check_own
from harness.errors import ConfigError


@dataclass
class Part:
    path: str | None = None
    size: int = 1


@dataclass
class Options:
    seeds: int = 5
    share: float | None = None
    curve: bool = True
    search: list[str] | None = None
    part: Part = field(default_factory=Part)


def test_options_are_read_and_null_leaves_one_open():
    found = parse_options(["seeds=3", "share=null", "search=[a,b]", "part.size=2"], Options)
    assert found == Options(3, None, True, ["a", "b"], Part(None, 2))


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("seeds=x", "seeds must be a whole number, got 'x'"),
        ("seeds=1.5", "seeds must be a whole number, got '1.5'"),
        ("seeds=null", "seeds must be a whole number, got 'null'"),
        ("share=yes", "share must be a number, got 'yes'"),
        ("curve=maybe", "curve must be true or false, got 'maybe'"),
        ("search=a", "search must be a list, as in [A,B], got 'a'"),
        ("part.size=x", "part.size must be a whole number, got 'x'"),
        ("seed=1", "unknown option seed (did you mean seeds?)"),
        ("seeds=[1", "an option's value cannot be read"),
    ],
)
def test_what_is_wrong_says_what_is_allowed(argument, says):
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as error:
        parse_options([argument], Options)
    assert says in str(error.value)


def test_an_answer_is_replaced_by_one_to_the_same_question_only(tmp_path):
    out = tmp_path / "out"
    check_own(out, "answer.json", {"limit": 1.0})
    out.mkdir()
    check_own(out, "answer.json", {"limit": 1.0})
    (out / "answer.json").write_text('{"limit": 1.0, "found": 3}')
    (out / "answer.png").touch()
    check_own(out, "answer.json", {"limit": 1.0})
    for question in ({"limit": 2.0}, {"limit": 1.0, "seed": None}):
        with pytest.raises(ConfigError, match=r"answer to another question \(answer.json\)"):
            check_own(out, "answer.json", question)
    (out / "answer.json").unlink()
    with pytest.raises(ConfigError, match=r"not empty \(it holds answer.png\); choose another"):
        check_own(out, "answer.json", {"limit": 1.0})
