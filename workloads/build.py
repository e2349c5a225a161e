"""From a WorkloadSpec and a seed to the requests of a run."""

from __future__ import annotations

import zlib

import numpy as np

from workloads import arrivals, conversation, lengths
from workloads.errors import WorkloadError, number, one_of, whole
from workloads.formats import read
from workloads.formats.source import MAX_TOKENS
from workloads.requests import TOO_LONG, IntArray, RequestTable
from workloads.spec import WorkloadSpec

SPEC_KINDS = ("generated", "conversation", "trace")
PACES = ("recorded", "dependent")
#: requests that are generated or read: their columns are some GB
MOST_REQUESTS = 10_000_000


def stream(seed: int, name: str) -> np.random.Generator:
    """An independent generator for one purpose: changing one draw leaves the others alone."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def build(spec: WorkloadSpec, seed: int = 0) -> RequestTable:
    """Make the requests of `spec`; the same spec and seed give the same table.

    Prompt lengths, output lengths, prefixes and arrivals are separate streams: another rate, or
    more requests, leaves the lengths of the first ones as they were. Where requests depend on
    others, it is the conversations that arrive.

    Raises WorkloadError, one line, for a number out of range, an unknown name, or a trace that is
    missing or malformed. `RequestTable.limit` applies `spec.too_long` once max_len is known.
    """
    seed = whole("seed", seed, at_least=0)
    one_of("workload.kind", spec.kind, SPEC_KINDS)
    one_of("workload.too_long", spec.too_long, TOO_LONG)
    one_of("workload.pace", spec.pace, PACES)
    if spec.num_requests is not None:
        whole("workload.num_requests", spec.num_requests, 1, MOST_REQUESTS)
    if spec.kind == "trace" or spec.path is not None:
        table = _from_trace(spec)
    elif spec.columns.given:
        raise WorkloadError("workload.columns is for traces, set workload.path")
    elif spec.pace != "recorded":
        raise WorkloadError(f"workload.pace={spec.pace} is for traces, set workload.path")
    elif spec.kind == "conversation":
        table = _conversations(spec, seed)
    else:
        table = _generated(spec, seed)
    kind = arrivals.choose(spec, table.timed)
    roots = table.roots
    recorded_s = table.arrival_s[roots]
    rng = stream(seed, "arrivals")
    table.start_at(arrivals.arrival_times(kind, len(roots), spec, rng, recorded_s))
    table.timed = kind == "trace"
    table.concurrency = spec.concurrency
    return table


def _from_trace(spec: WorkloadSpec) -> RequestTable:
    if not spec.path:
        what = "FILE or FOLDER" if spec.format == "kv_cache_tester" else "FILE"
        raise WorkloadError(f"workload {spec.name!r} reads a trace: workload.path={what} is needed")
    if spec.prefix_tokens:
        raise WorkloadError("workload.prefix_tokens is for generated requests, not for a trace")
    table = read(spec.path, spec.format, spec.num_requests, spec.pace == "dependent", spec.columns)
    if spec.num_requests is not None and spec.num_requests > len(table):
        raise WorkloadError(
            f"workload.num_requests={spec.num_requests}, but {spec.path} has {len(table)} requests"
        )
    if spec.pace == "dependent" and table.after is None:
        raise WorkloadError(
            f"{spec.path}: does not record which request waited for which, and how long each took; "
            "workload.pace=dependent is for the format kv_cache_tester"
        )
    if spec.kind != "trace":
        table.notes.append(
            f"requests are those of {spec.path}; the lengths of workload {spec.name!r} are not used"
        )
    return table


def _generated(spec: WorkloadSpec, seed: int) -> RequestTable:
    if spec.num_requests is None:
        raise WorkloadError("workload.num_requests is needed: a whole number >= 1")
    n = spec.num_requests
    prompt = lengths.sample(spec.prompt, n, stream(seed, "prompt"), "prompt")
    output = lengths.sample(spec.output, n, stream(seed, "output"), "output")
    prefix_id, prefix_tokens = _prefixes(spec, n, seed)
    return RequestTable(
        arrival_s=np.zeros(n),
        prompt_tokens=prompt + prefix_tokens,
        output_tokens=output,
        prefix_id=prefix_id,
        prefix_tokens=prefix_tokens,
    )


def _prefixes(spec: WorkloadSpec, n: int, seed: int) -> tuple[IntArray | None, int]:
    """Which shared prefix each of `n` prompts starts with (None: there is none), and its tokens."""
    prefix_tokens = whole("workload.prefix_tokens", spec.prefix_tokens, 0, MAX_TOKENS)
    count = whole("workload.num_prefixes", spec.num_prefixes, at_least=1)
    if count > lengths.ZIPF_MAX_RANKS:
        raise WorkloadError(
            f"workload.num_prefixes={count} is not allowed; expected <= {lengths.ZIPF_MAX_RANKS}"
        )
    skew = number("workload.prefix_zipf", spec.prefix_zipf, at_least=0)
    if not prefix_tokens:
        return None, 0
    return lengths.zipf_ranks(stream(seed, "prefix").random(n), count, skew), prefix_tokens


def _conversations(spec: WorkloadSpec, seed: int) -> RequestTable:
    def draw(name: str, n: int) -> IntArray:
        return lengths.sample(getattr(spec, name), n, stream(seed, name), name)

    prefix_tokens = whole("workload.prefix_tokens", spec.prefix_tokens, 0, MAX_TOKENS)
    turns = conversation.plan(spec, prefix_tokens, draw)
    think = stream(seed, "think").standard_exponential(len(turns.conversation))
    prefix_id, _ = _prefixes(spec, int(turns.conversation[-1]) + 1, seed)
    return turns.table(spec, think, prefix_id, prefix_tokens)
