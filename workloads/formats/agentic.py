"""kv-cache-tester: agentic coding sessions, one JSON document a conversation.

A document has `block_size` (64 tokens), `hash_id_scope` and `requests`, each with `t` (s), `in`,
`out`, `hash_ids` of the whole blocks (len == floor(in / block_size)) and, most of them, `api_time`,
the seconds it took. With scope "local", ids mean something only inside their document, so those of
each document are moved to a range of their own; with "global" they are kept.

An item may be a sub-agent with `requests` of its own. It shares the ids of its parent, and the `t`
inside it counts from its start. The item's own `t` is its end, `duration_ms` after its start: in
the public documents that start falls, to the second, on the end of the parent's request, and those
of parallel sub-agents on each other. Without `duration_ms`, `t` is taken as the start.

Requests come `after` each other as `chains` tells; where `api_time` is missing (7 % of the public
requests), the time to the next one counts from the start of the request and so is too long.

A path may also be a folder of such documents: conversations are laid over each other, each from
its own t = 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.formats.chains import Agent, Leaf, chain
from workloads.formats.rows import Rows, block_ids
from workloads.formats.source import MAX_IDENTITIES, read_document, refuse, seconds, tokens
from workloads.requests import IntArray, RequestTable

SCOPES = ("local", "global")


def read_kv_cache_tester(path: str | Path, first: int | None = None) -> RequestTable:
    """Requests are called DOCUMENT/INDEX, and those of a sub-agent DOCUMENT/INDEX/INDEX.

    All is read whatever `first` is: any document may hold the earliest requests.
    """
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
        leaves: list[Leaf] = []
        for place, indices, offset_s, item in _leaves(file, document["requests"]):
            leaves += _add(rows, place, name, indices, offset_s, item, block_tokens)
        for _, (after, think_s) in sorted(chain(leaves).items()):
            rows.after.append(after)
            rows.think_s.append(think_s)
        spans.append((scope, start, len(rows.prompt)))
    rows.path = path
    _separate(path, rows.hash_ids, spans, block_tokens)
    return rows.table(block_tokens, in_order=False)


def _documents(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith((".json", ".json.gz")))
    if not files:
        raise WorkloadError(f"{path}: no .json or .json.gz file in this folder")
    return files


def _leaves(
    file: Path,
    items: list[Any],
    place: str = "requests",
    agent: Agent = (),
    offset_s: float = 0.0,
) -> Iterator[tuple[str, Agent, float, dict[str, Any]]]:
    """Yield (place in the document, indices, start of its agent, request), depth first."""
    for i, item in enumerate(items):
        here = f"{place}[{i}]"
        if not isinstance(item, dict):
            refuse(file, here, "expected a JSON object, one request")
        if isinstance(item.get("requests"), list):
            start_s = offset_s + seconds(file, here, "t", item.get("t"))
            if "duration_ms" in item:
                start_s -= seconds(file, here, "duration_ms", item["duration_ms"], 1e-3)
            nested = f"{here}.requests"
            yield from _leaves(file, item["requests"], nested, (*agent, i), start_s)
        else:
            yield here, (*agent, i), offset_s, item


def _add(
    rows: Rows,
    place: str,
    document: str,
    indices: tuple[int, ...],
    offset_s: float,
    item: dict[str, Any],
    block_tokens: int,
) -> list[Leaf]:
    """Add a request; return what `chain` needs of it, nothing where it is left out."""
    file = rows.path
    start_s = offset_s + seconds(file, place, "t", item.get("t"))
    prompt = tokens(file, place, "in", item.get("in"))
    output = tokens(file, place, "out", item.get("out"))
    ids = block_ids(rows, place, item.get("hash_ids"), prompt, block_tokens)
    took_s = item.get("api_time")
    end_s = start_s if took_s is None else start_s + seconds(file, place, "api_time", took_s)
    if not rows.add(prompt, output):
        return []
    rows.time_s.append(start_s)
    rows.ids.append("/".join(map(str, (document, *indices))))
    rows.hash_ids.append(ids)
    return [Leaf(len(rows.prompt) - 1, indices[:-1], start_s, end_s)]


def _separate(
    path: str | Path,
    hash_ids: list[IntArray],
    spans: list[tuple[str, int, int]],
    block_tokens: int,
) -> None:
    """Move local ids, in place, above the global ones and above those of earlier documents."""

    def largest(start: int, stop: int) -> int:
        return max((int(ids.max()) for ids in hash_ids[start:stop] if len(ids)), default=-1)

    spare = 1 + max((largest(a, b) for scope, a, b in spans if scope == "global"), default=-1)
    for scope, start, stop in spans:
        if scope == "local":
            width = 1 + largest(start, stop)
            if spare + width > MAX_IDENTITIES // block_tokens:
                raise WorkloadError(
                    f"{path}: the documents' own hash_ids, one range after the other, end above "
                    f"{MAX_IDENTITIES // block_tokens - 1}, the most for {block_tokens} tokens"
                )
            for i in range(start, stop):
                hash_ids[i] = hash_ids[i] + np.int64(spare)
            spare += width
