"""kv-cache-tester: agentic coding sessions, one JSON document a conversation.

A document has `block_size` (64 tokens), `hash_id_scope` and `requests`, each with `t` (s), `in`,
`out` and `hash_ids` of the whole blocks (len == floor(in / block_size)). An item may be a
sub-agent with `requests` of its own, whose `t` counts from the sub-agent's. It shares the ids of
its parent. With scope "local", ids mean something only inside their document, so those of each
document are moved to a range of their own; with "global" they are kept.

A path may also be a folder of such documents: conversations are laid over each other, each from
its own t = 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.formats.rows import Rows, block_ids
from workloads.formats.source import read_document, refuse, seconds, tokens
from workloads.requests import IntArray, RequestTable

SCOPES = ("local", "global")


def read_kv_cache_tester(path: str | Path) -> RequestTable:
    """Requests are called DOCUMENT/INDEX, and those of a sub-agent DOCUMENT/INDEX/INDEX."""
    rows = Rows(path)
    block_tokens = 0
    spans: list[tuple[str, int, int]] = []  # scope and the rows of each document
    for file in _documents(Path(path)):
        rows.path = file  # errors name the document
        document = read_document(file)
        if not isinstance(document, dict) or not isinstance(document.get("requests"), list):
            refuse(file, 1, "expected a JSON object with a list of requests")
        size = tokens(file, 1, "block_size", document.get("block_size"))
        if size == 0 or (block_tokens and size != block_tokens):
            expected = f"{block_tokens} as in the others" if block_tokens else "at least 1"
            refuse(file, 1, f"block_size is {size}; expected {expected}")
        block_tokens = size
        scope = document.get("hash_id_scope", "local")
        if scope not in SCOPES:
            refuse(file, 1, f"hash_id_scope is {scope!r}; expected {' or '.join(SCOPES)}")
        start = len(rows.prompt)
        name = str(document.get("id", file.name.split(".")[0]))
        for place, label, offset_s, item in _leaves(file, document["requests"]):
            _add(rows, place, f"{name}/{label}", offset_s, item, block_tokens)
        spans.append((scope, start, len(rows.prompt)))
    _separate(rows.hash_ids, spans)
    rows.path = path
    return rows.table(block_tokens, in_order=False)


def _documents(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith((".json", ".json.gz")))
    if not files:
        raise WorkloadError(f"{path}: no .json or .json.gz file in this folder")
    return files


def _leaves(
    file: Path, items: list[Any], place: str = "requests", label: str = "", offset_s: float = 0.0
) -> Iterator[tuple[str, str, float, dict[str, Any]]]:
    """Yield (place in the document, label, start of the enclosing agent, request), depth first."""
    for i, item in enumerate(items):
        here = f"{place}[{i}]"
        if not isinstance(item, dict):
            refuse(file, here, "expected a JSON object, one request")
        if isinstance(item.get("requests"), list):
            start_s = offset_s + seconds(file, here, "t", item.get("t"))
            nested = f"{here}.requests"
            yield from _leaves(file, item["requests"], nested, f"{label}{i}/", start_s)
        else:
            yield here, f"{label}{i}", offset_s, item


def _add(
    rows: Rows, place: str, name: str, offset_s: float, item: dict[str, Any], block_tokens: int
) -> None:
    file = rows.path
    time_s = offset_s + seconds(file, place, "t", item.get("t"))
    prompt = tokens(file, place, "in", item.get("in"))
    output = tokens(file, place, "out", item.get("out"))
    ids = block_ids(rows, place, item.get("hash_ids"), prompt, block_tokens)
    if rows.add(prompt, output):
        rows.time_s.append(time_s)
        rows.ids.append(name)
        rows.hash_ids.append(ids)


def _separate(hash_ids: list[IntArray], spans: list[tuple[str, int, int]]) -> None:
    """Move local ids, in place, above the global ones and above those of earlier documents."""

    def largest(start: int, stop: int) -> int:
        return max((int(ids.max()) for ids in hash_ids[start:stop] if len(ids)), default=-1)

    spare = 1 + max((largest(a, b) for scope, a, b in spans if scope == "global"), default=-1)
    for scope, start, stop in spans:
        if scope == "local":
            width = 1 + largest(start, stop)
            for i in range(start, stop):
                hash_ids[i] = hash_ids[i] + np.int64(spare)
            spare += width
