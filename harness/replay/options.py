"""The options of a replay, typed; all others are those of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from harness.command.arguments import check_run_option, parse_options
from harness.errors import ConfigError
from harness.replay.arrivals import KINDS, ArrivalSpec

USAGE = f"""\
usage: python -m harness.replay measured=FILE model=NAME hardware=NAME [OPTION=VALUE ...]

Simulates the very requests that a benchmark client sent to a real server, at their own times, and
puts what it measured beside the simulation. docs/replay.md says what is read and compared.

  measured=FILE        what vllm bench serve --save-result --save-detailed, SGLang's bench_serving
                       --output-details, GuideLLM, AIPerf (--export-level records) or GenAI-Perf
                       wrote, or a CSV: arrival_s,prompt_tokens,output_tokens,ttft_s,e2e_s
  run=N                which of several runs in the file, from 1
  arrivals=KIND        {", ".join(KINDS)}: when requests arrive; by default as the
                       file says. drawn: as vLLM's client draws them, by the file's own rate and
                       burstiness or rate=N burstiness=N, and arrivals_seed=0. closed_loop: the
                       next comes where a simulated one ends, by the file's or concurrency=N
  prompt_tokens=N      of a file that does not count them (GenAI-Perf): N each, or words
  metrics=FILE         the server's /metrics (vLLM): KV usage, running, waiting, preemptions
  fit=false            true: fits the constants of software=NAME on the first half of the run, by
                       time, and reports on the second
  out=DIR              where replay.json, requests.csv and replay.png go; results/runs/replay-TIME

All other options are those of a run (python -m harness --help): model, hardware, engine (chunked),
allocator (paged, blocks of 16, no prefix index), kv_tokens, kv_memory_gib, seed, ...
"""


@dataclass
class ReplayOptions:
    measured: str | None = None
    run: int | None = None
    arrivals: str | None = None
    rate: float | None = None
    burstiness: float | None = None
    arrivals_seed: int = 0
    concurrency: int | None = None
    prompt_tokens: Any = None
    metrics: str | None = None
    fit: bool = False
    out: str | None = None

    @property
    def arrival_spec(self) -> ArrivalSpec:
        return ArrivalSpec(
            self.arrivals, self.rate, self.burstiness, self.arrivals_seed, self.concurrency
        )


def parse(arguments: Sequence[str]) -> tuple[ReplayOptions, list[str]]:
    """Return the options of a replay, and those of a run.  Raises `ConfigError`, one line."""
    names = {field.name for field in fields(ReplayOptions)}
    own, others = [], []
    for argument in arguments:
        if argument.startswith("-"):
            raise ConfigError(f"{argument}: a replay takes OPTION=VALUE alone; --help lists them")
        (own if argument.partition("=")[0] in names else others).append(argument)
    for argument in others:
        check_run_option(argument)
    options = parse_options(own, ReplayOptions)
    if not options.measured:
        raise ConfigError(
            "measured=FILE is needed: what a benchmark client wrote; --help lists the options"
        )
    if options.prompt_tokens is not None:
        options.prompt_tokens = str(options.prompt_tokens)
    return options, others
