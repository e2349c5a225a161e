"""A sweep is answered as a whole, by tails too, and says how its grid limits the answer."""

from pathlib import Path

from harness.report.collection import Collection, Run
from harness.report.verdict import verdicts
from harness.results import ResultRow
from tests.report.runs import config


def row(name, tokens_per_s=800.0, latency_s=0.1, **metrics):
    values = {"output_tokens_per_s": tokens_per_s, "normalized_latency_mean_s": latency_s}
    return ResultRow(name, metrics={**values, **metrics})


def swept(headers, *runs):
    """A collection of (options, rows), options in the order of `headers`."""
    found = [
        Run(str(index), Path(), config(), {}, rows, dict(zip(headers, options, strict=True)))
        for index, (options, rows) in enumerate(runs)
    ]
    return Collection(found, {name: name.rpartition(".")[2] for name in headers})


def test_a_rate_is_not_held_where_the_tail_of_ttft_runs_away():
    calm, slow = {"ttft_p99_s": 0.12}, {"ttft_p99_s": 4.86}
    collection = swept(
        ["workload.rate"],
        ((1.0,), [row("paged", **calm), row("contiguous_max", **calm)]),
        ((2.0,), [row("paged", ttft_p99_s=0.144), row("contiguous_max", **slow)]),
    )
    said = verdicts(collection)[0]
    assert said.startswith("paged holds normalized latency under 200 ms/token and TTFT p99 under")
    assert "TTFT p99 under 0.6 s (2 and 5 times the best at 1 requests/s) up to 2 req" in said
    assert "; contiguous_max 1." in said
    assert said.endswith("No higher rate was tried: 2 is a lower bound.")


def test_a_rate_is_not_held_where_answers_stutter():
    """Long gaps that few requests have: means and the time to a first token do not show them."""
    rates = [(1.0, 0.02, 0.02), (2.0, 0.09, 0.11)]
    runs = [((r,), [row("a", itl_p99_s=a), row("b", itl_p99_s=b)]) for r, a, b in rates]
    said = verdicts(swept(["workload.rate"], *runs))[0]
    assert "ITL p99 under 0.1 s (2 and 5 times the best at 1 requests/s) up to 2 requ" in said
    assert "; b 1." in said


def test_a_sweep_over_limits_says_who_keeps_each_and_takes_none_for_a_knob():
    goods = [(0.5, 0.2, 0.4), (2.0, 0.9, 0.8)]
    runs = []
    for limit, a, b in goods:
        rows = [
            row(name, speed, good_share=good, goodput_requests_per_s=10 * good)
            for name, speed, good in (("paged", 800.0, a), ("virtual", 400.0, b))
        ]
        runs.append(((limit,), rows))
    collection = swept(["slo.ttft_s"], *runs)
    for run in collection.runs:
        run.config["slo"] = {"ttft_s": run.options["slo.ttft_s"]}
    said = verdicts(collection)
    assert said[0].startswith(
        "The limits change no run, but who keeps them. Take paged: 800 output"
    )
    assert [
        text.replace("\u00a0", " ").removeprefix("Requests/s within slo.") for text in said[1:]
    ] == [
        "ttft_s=0.5: virtual 4 (40 % of all), paged 2 (20 % of all).",
        "ttft_s=2: paged 9 (90 % of all), virtual 8 (80 % of all).",
    ]


def test_the_rates_tried_limit_the_answer_and_those_that_tie_show_their_tails():
    rates = [(1.0, 0.1, 0.1), (2.0, 0.2, 0.4), (8.0, 9.0, 9.0)]
    collection = swept(
        ["workload.rate"],
        *(((r,), [row("a", ttft_p99_s=a), row("b", ttft_p99_s=b)]) for r, a, b in rates),
    )
    said = verdicts(collection)
    assert "The next rate tried is 8: what holds in between is not known." in said[0]
    assert said[1] == "At 2 requests/s TTFT p99 is 0.2 s with a and 0.4 s with b."


def knobs(speeds):
    """{(block_size, watermark): tokens/s} of one allocator."""
    headers = ["allocators.paged.block_size", "allocators.paged.watermark"]
    return swept(headers, *((at, [row("paged", speed)]) for at, speed in speeds.items()))


def test_several_knobs_have_one_answer_with_the_worth_of_each():
    speeds = {(16, 0.0): 100.0, (16, 0.1): 99.5, (64, 0.0): 80.0, (64, 0.1): 20.0}
    said = verdicts(knobs(speeds))[0]
    assert said == (
        "Take paged with block_size 16, watermark 0.0: 100 output tokens/s, the best of 4 "
        "settings. At it, the worst other value costs: block_size 20\u00a0%. Within noise "
        "(1.0\u00a0%): watermark."
    )


def test_the_answer_to_several_knobs_stands_before_those_of_the_runs():
    headers = ["allocators.paged.block_size", "engine.max_num_seqs"]
    collection = swept(
        headers,
        *(
            ((size, seqs), [row("paged", 10.0 * seqs / size), row("virtual", 1.0)])
            for size in (8, 16)
            for seqs in (4, 8)
        ),
    )
    said = verdicts(collection)
    assert said[0].startswith("Take paged with block_size 8, max_num_seqs 8: 10 output tokens/s")
    assert "the choice of the allocator 90\u00a0%, block_size 50\u00a0%, max_num_seqs 50" in said[0]
    assert said[1].startswith("block_size 8, max_num_seqs 4: Take paged")
    assert len(said) == 5


def test_what_is_served_and_on_what_is_no_knob():
    headers = ["workload.rate", "allocators.paged.block_size"]
    collection = swept(headers, *(((r, 16), [row("paged", r)]) for r in (1.0, 2.0)))
    assert verdicts(collection)[0].startswith("paged with rate 2.0")


def test_runs_that_serve_alike_have_no_best():
    speeds = {("hash",): 100.0, ("radix",): 99.5}
    headers = ["allocators.paged.prefix_index"]
    alike = swept(headers, *((at, [row("paged", speed)]) for at, speed in speeds.items()))
    assert verdicts(alike)[0] == "All serve about 100 output tokens/s."
    faster = swept(headers, (("hash",), [row("paged", 100.0)]), (("radix",), [row("paged", 90.0)]))
    assert verdicts(faster)[0].startswith("paged with prefix_index hash serves most: 100 output")
