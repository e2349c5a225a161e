"""A lead that is merely what the clock charges for block tables, told from the records alone."""

import pytest

from harness.comparison import compose, prepare
from harness.comparison.variant import run_variant
from harness.report.collection import Collection, Run
from harness.report.table_price import table_share
from harness.report.verdict import verdicts
from tests.report.runs import config
from tests.report.test_verdict import row

SMALL = (
    "+workload=alpaca", "workload.num_requests=24", "kv_tokens=3000", "engine.max_len=1024",
    "engine.compiled=off",
)  # fmt: skip
FREE = ("software.table_entry_ns=0", "cost_model.table_latency_us=0", "hardware.pcie_gb_s=1e6")


def served(name, *options):
    prepared = prepare(compose(*SMALL, "allocator=[paged,contiguous_grow]", *options))
    found, _ = run_variant(prepared, name)
    return Run("run", None, prepared.saved, {}, [found]), found


@pytest.mark.parametrize(
    "options",
    [
        ("engine=continuous", "software=vllm-2023", "hardware.count=2"),
        ("engine=chunked", "allocators.paged.block_size=4"),
        ("engine=orca", "sampling.mode=beam", "sampling.width=2"),
    ],
    ids=lambda options: options[0],
)
def test_the_share_is_the_time_that_tables_take(options):
    run, charged = served("paged", *options)
    free = served("paged", *options, *FREE)[1]
    seconds = charged.metrics["makespan_s"] - free.metrics["makespan_s"]
    assert charged.metrics["steps"] == free.metrics["steps"]
    share = seconds / charged.metrics["makespan_s"]
    assert share > 1e-4
    assert table_share(run, charged) == pytest.approx(share, rel=1e-2)
    assert table_share(*served("contiguous_grow", *options)) == pytest.approx(0.0, abs=1e-9)


SOFTWARE = {
    "name": "nominal", "step_us": 1000.0, "workers_us": 0.0, "sequence_us": 0.0, "token_us": 0.0,
    "prefill_us": 0.0, "sampling_us": 5.0, "overlapped": False,
}  # fmt: skip


def timed(name, tokens_per_s, tables=0.0, latency_s=0.05):
    """A row of 1,000 steps in 10 s, of which block tables take a share of `tables`."""
    share = 0.1 + tokens_per_s * 5e-6 + tables
    spent = {"makespan_s": 10.0, "steps": 1000, "time_software_share": share}
    return row(name, tokens_per_s, latency_s, **spent)


def told(*rows, policy="continuous", mode="greedy", **software):
    priced = {
        **config(),
        "software": {**SOFTWARE, **software},
        "engine": {"policy": policy},
        "sampling": {"mode": mode},
    }
    run = Run("run", None, priced, {}, list(rows))
    return verdicts(Collection([run], {}))[0]


def test_a_lead_that_is_the_price_of_block_tables_is_said_to_be_that():
    rows = [timed("virtual", 1000), timed("paged", 970, 0.03)]
    price = "software=nominal charges paged 3.0\u00a0% of the time for block tables, without which"
    assert told(*rows).endswith(f"; {price} it would serve as much.")
    assert price in told(*rows, policy="chunked")
    assert "charges" not in told(rows[0], timed("paged", 900, 0.03))  # most of it is left
    assert "charges" not in told(rows[0], timed("paged", 970, 0.002))
    assert "charges" not in told(timed("virtual", 1000, 0.03), rows[1])  # both have them
    ideal = [timed("contiguous_oracle", 1000), rows[1]]
    assert f"1,000 output tokens/s ({price} it would serve as much), but it is" in told(*ideal)
    slower = [timed("virtual", 500), timed("paged", 500, 0.04, latency_s=0.052)]
    assert told(*slower).endswith("for block tables, without which it would be as fast.")
    two = told(*rows, timed("paged8", 950, 0.05))
    assert "charges paged 3.0\u00a0% and paged8 5.0\u00a0% of the time" in two
    assert two.endswith("they would serve as much.")


@pytest.mark.parametrize(
    "unknown",
    [
        {"overlapped": True},
        {"policy": "static"},
        {"mode": "speculative"},
        {"policy": "chunked", "sequence_us": 1e-9},
        {"prefill_us": 1e-9},
        {"token_us": 1e-9},
    ],
    ids=str,
)
def test_nothing_is_said_where_the_records_do_not_tell(unknown):
    assert "charges" not in told(timed("virtual", 1000), timed("paged", 970, 0.03), **unknown)


def test_so_it_is_in_the_answer_for_several_runs():
    priced = {**config(), "software": SOFTWARE, "engine": {"policy": "continuous"}}

    def said(*lags):
        runs = [
            Run(name, None, priced, {}, [timed("virtual", 1000), lag], {"workload": name})
            for name, lag in zip("ab", lags, strict=True)
        ]
        return verdicts(Collection(runs, {"workload": "workload"}))[0]

    merely = "times those of paged (by no more than what the software charges for block tables)"
    assert merely in said(timed("paged", 970, 0.03), timed("paged", 999))
    assert merely not in said(timed("paged", 970, 0.03), timed("paged", 960))
