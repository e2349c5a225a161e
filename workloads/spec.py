"""What a workload is, as plain dataclasses that also serve as OmegaConf structured configs.

Only int, float, str, bool, optionals and nested dataclasses, so that a YAML or a command-line
override is type-checked before anything runs. Values are checked where they are used, in
`workloads.build`, so that every message names the key the user typed.
"""

from dataclasses import dataclass, field


@dataclass
class LengthSpec:
    """One length distribution, in tokens. Which fields count depends on `kind`:

    fixed: `value`. uniform: `low`..`high`, each whole number alike. normal: `mean`, `std` before
    the cut. geometric: `mean` before the cut, a length of 1 the likeliest. lognormal: `mean` AFTER
    the cut, `sigma` the standard deviation of the logarithm. zipf: P(k) proportional to
    k**-`exponent` on `low`..`high`. empirical: `path`, a CSV of lengths or of quantiles, or
    `table`, the name of a quantile table that is shipped; with `column`.
    """

    kind: str = "fixed"
    value: int | None = None
    low: int = 1  # the cut, both bounds inclusive
    high: int | None = None
    cut: str = "redraw"  # redraw: only lengths within count | clip: those beyond become the bound
    mean: float | None = None
    std: float | None = None
    sigma: float | None = None
    exponent: float | None = None
    path: str | None = None
    table: str | None = None
    column: str | None = None


@dataclass
class ColumnSpec:
    """Names in a user's own list of requests: columns of a CSV, keys of a JSONL of token ids.

    `prompt` is a column of token counts, or the key of a list of token ids. `arrival_unit` is s,
    ms, us or ns; None: the one that the name ends in, as `sent_ms` does, else s.
    """

    arrival: str | None = None
    arrival_unit: str | None = None
    prompt: str | None = None
    output: str | None = None

    @property
    def given(self) -> bool:
        """Whether any of them is named."""
        return self != ColumnSpec()


@dataclass
class WorkloadSpec:
    """Requests: how many, how long, when, and what their prompts share."""

    name: str = "custom"
    description: str = ""
    source: str = ""  # what the numbers are; a stand-in says that it is one

    # "generated" draws lengths from `prompt` and `output`; "conversation" draws turns that come
    # after each other; "trace" reads `path`. A `path` given to the others turns them into a trace.
    kind: str = "generated"
    path: str | None = None
    format: str = "auto"
    columns: ColumnSpec = field(default_factory=ColumnSpec)
    num_requests: int | None = None  # of a trace: the first N by arrival; None: all
    # Of a trace that records sessions: "recorded" brings each request at its recorded time;
    # "dependent" brings it when the one before it in its session has ended here, plus the time
    # that passed between them in the recording.
    pace: str = "recorded"
    too_long: str = "error"  # error | skip | truncate, applied by RequestTable.limit

    # Requests per second, and where requests depend on others conversations per second; inf: all
    # at once. None: the trace's own times if it has them, else all at once, or a closed loop where
    # `concurrency` is given.
    rate: float | None = None
    # Shape of the gamma distribution of the gaps: 1 is Poisson, below 1 burstier, above 1 more
    # regular; the mean rate does not change.
    burstiness: float = 1.0
    arrivals: str = "auto"  # auto | trace | poisson | gamma | all_at_once | closed_loop
    concurrency: int | None = None  # of a closed loop: requests, or conversations, in flight

    prompt: LengthSpec = field(default_factory=LengthSpec)
    output: LengthSpec = field(default_factory=LengthSpec)

    # A shared prefix comes before the `prompt` tokens, which are the request's own.
    prefix_tokens: int = 0
    num_prefixes: int = 1
    prefix_zipf: float = 0.0  # popularity of prefix k is proportional to (k + 1) ** -prefix_zipf

    # A conversation: `prompt` and `output` are those of one turn, sent with all turns before it.
    num_conversations: int | None = None  # at most; and at most `num_requests` turns in all
    turns: LengthSpec = field(default_factory=LengthSpec)  # how many are planned
    think_time_s: float = 0.0  # mean of the exponential time from an answer to the next turn
    # keep: a turn's prompt goes on exactly where the turn before had ended, so its KV may be found
    # again. drop: the history is sent again as other tokens; only a shared prefix is found.
    history: str = "keep"
    max_context_tokens: int | None = None  # ends before prompt + output would exceed it
