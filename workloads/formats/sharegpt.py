"""ShareGPT: a JSON list of conversations, [{"id", "conversations": [{"from", "value"}, ...]}].

The first turn of a human and the reply of the model to it make one request, as serving benchmarks
sample it; the rest is left out. Token counts are those of the file where a turn has `num_tokens`.
Else they are estimated at 4 characters a token, rounded up, since no tokenizer is at hand: a rule
of thumb for English text, so means may be off by a quarter and by more for code or Chinese.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workloads.formats.rows import Rows
from workloads.formats.source import read_document, refuse, tokens
from workloads.requests import RequestTable

CHARACTERS_PER_TOKEN = 4
HUMAN = ("human", "user")
MODEL = ("gpt", "assistant", "chatgpt", "bing", "bard")


def read_sharegpt(path: str | Path, first: int | None = None) -> RequestTable:
    """A table without times. Conversations without a human turn and its reply are skipped.

    It is one JSON document, so all is read whatever `first` is.
    """
    document = read_document(path)
    if not isinstance(document, list):
        refuse(path, 1, "expected a JSON list of conversations")
    rows = Rows(path)
    estimated = 0
    for i, conversation in enumerate(document):
        place = f"[{i}].conversations"
        turns = conversation.get("conversations") if isinstance(conversation, dict) else None
        if not isinstance(turns, list):
            refuse(path, place, 'expected a list of turns, {"from", "value"}')
        pair = _first_exchange(path, place, turns)
        if pair is None:
            rows.counts["conversations skipped, without a human turn and a reply"] += 1
            continue
        if rows.add(*(_count(path, f"{place}[{k}]", turns[k]) for k in pair)):
            rows.ids.append(str(conversation.get("id", i)))
            estimated += any("num_tokens" not in turns[k] for k in pair)
    if estimated:
        rows.notes.append(
            f"{path}: token counts of {estimated} requests are estimates, "
            f"{CHARACTERS_PER_TOKEN} characters a token; no tokenizer was used"
        )
    return rows.table()


def _first_exchange(path: str | Path, place: str, turns: list[Any]) -> tuple[int, int] | None:
    for k, turn in enumerate(turns):
        if not isinstance(turn, dict) or not isinstance(turn.get("from"), str):
            refuse(path, f"{place}[{k}]", 'expected a turn, {"from", "value"}')
        if turn["from"] in MODEL and k and turns[k - 1]["from"] in HUMAN:
            return k - 1, k
    return None


def _count(path: str | Path, place: str, turn: dict[str, Any]) -> int:
    if "num_tokens" in turn:
        return tokens(path, place, "num_tokens", turn["num_tokens"])
    if not isinstance(turn.get("value"), str):
        refuse(path, place, "no text in value, and no num_tokens")
    return -(-len(turn["value"]) // CHARACTERS_PER_TOKEN)
