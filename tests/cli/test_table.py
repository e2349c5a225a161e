"""The table on the screen: marks, failing rows, width; and progress bars only on a terminal."""

import io

from harness.cli.columns import COLUMNS, Column
from harness.cli.progress import bar
from harness.cli.table import print_table
from harness.results import ResultRow
from harness.results.best import best_rows
from harness.results.metrics import BY_NAME
from harness.results.numbers import short_number

NAMES = ("contiguous_max", "contiguous_pow2", "contiguous_oracle", "paged", "virtual")


def rows_of(**columns):
    count = len(next(iter(columns.values())))
    return [
        ResultRow(NAMES[i], metrics={name: values[i] for name, values in columns.items()})
        for i in range(count)
    ]


def best(rows, column, runs=None):
    direction = BY_NAME[column.metric].direction
    return best_rows(rows, runs or [0] * len(rows), column.metric, direction, column.text)


def printed(rows, **options):
    file = io.StringIO()
    print_table(rows, file=file, **options)
    return file.getvalue()


def test_the_largest_or_the_smallest_is_best_by_the_direction_of_the_metric():
    rows = rows_of(requests_per_s=[1.0, 3.0, 2.0], preemptions=[5, 0, 9], cached_share=[0, 1, 2])
    assert best(rows, Column("requests_per_s", "")) == {1}
    assert best(rows, Column("preemptions", "")) == {1}
    assert best(rows, Column("cached_share", "")) == set()


def test_equal_as_printed_is_a_tie_and_all_equal_is_no_contest():
    assert best(rows_of(mean_batch=[7.001, 7.002, 3.0]), Column("mean_batch", "")) == {0, 1}
    assert best(rows_of(preemptions=[0, 0, 0]), Column("preemptions", "")) == set()
    assert best(rows_of(mean_batch=[7.0]), Column("mean_batch", "")) == set()


def test_best_means_within_a_run_unless_every_run_has_one_row():
    rows, column = rows_of(requests_per_s=[1.0, 2.0, 4.0, 3.0]), Column("requests_per_s", "")
    assert best(rows, column, ["a", "a", "b", "b"]) == {1, 2}
    assert best(rows, column, ["a", "b", "c", "d"]) == {2}


def test_the_screen_and_the_report_mark_the_same_rows(tmp_path):
    from harness.cli.sweeps.table import combine
    from harness.report.load import load_collection
    from harness.report.sections import main_columns, result_lines
    from tests.report.runs import sweep

    def speeds(rate):
        return {"paged": rate, "virtual": 0.5 * rate}

    path = sweep(tmp_path / "s", "workload.rate", [1, 2], speeds)
    screen = io.StringIO()
    combine(path, file=screen)
    text = screen.getvalue()
    assert "* best of its column and run." in text
    lines = [line for line in text.splitlines() if line.split()[1:2] in (["paged"], ["virtual"])]
    at = text.splitlines()[1].split().index("tok/s") - len(text.splitlines()[1].split())
    starred = [line.split()[at].endswith("*") for line in lines]
    collection = load_collection([path])
    index = [each.metric for each in main_columns(collection)].index("output_tokens_per_s")
    marked = [
        line.cells[index]["best"] for line in result_lines(collection, main_columns(collection))
    ]
    assert starred == marked == [True, False, True, False]


def test_rows_that_failed_or_have_no_value_win_nothing():
    rows = rows_of(ttft_p50_s=[None, 2.0, 3.0])
    rows.append(ResultRow("broken", "error", "no", {"ttft_p50_s": 0.1}))
    assert best(rows, Column("ttft_p50_s", "")) == {1}


def test_piped_output_has_stars_and_reasons_but_no_colour_and_no_wrapping():
    rows = rows_of(**{column.metric: [0.2, 0.1] for column in COLUMNS})
    reason = "a reason " + "that goes on " * 20
    text = printed([*rows, ResultRow("virtual", "unsupported", reason)])
    assert "\x1b" not in text
    lines = text.splitlines()
    best = next(line for line in lines if line.startswith("contiguous_max"))
    assert best.count("*") == 6  # token, saturated, batch, two rates, sharing
    assert next(line for line in lines if line.startswith("contiguous_pow2")).count("*") == 3
    assert f"virtual: unsupported: {reason}".rstrip() in text.replace(" \n", "\n")


def test_every_column_is_whole_at_80_columns():
    columns = {column.metric: [0.1234, 0.456, 0.999, 0.5, 0.25] for column in COLUMNS}
    columns.update(
        mean_batch=[123.4, 7.0, 8.0, 9.0, 10.0],
        output_tokens_per_s=[12345.0, 1.0, 2.0, 3.0, 4.0],
        ttft_p50_s=[0.0123, 1234.0, 1.0, 2.0, 3.0],
        normalized_latency_mean_s=[0.0412, 0.0413, 0.05, 0.06, 0.07],
        preemptions=[12345, 3, 4, 5, 6],
    )
    text = printed(rows_of(**columns), width=80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(any(line.startswith(f"{name} ") for line in text.splitlines()) for name in NAMES)


def test_markup_in_names_and_reasons_is_text():
    text = printed([ResultRow("[red]paged[/]", "error", "[bold]x[/bold]")])
    assert "[red]paged[/]: error: [bold]x[/bold]" in text


def test_short_numbers():
    shown = {
        0.0: "0",
        9.996: "10.0",
        0.0412: "0.0412",
        1234.5: "1234",
        0.5: "0.500",
        2e7: "2.0e+07",
    }
    assert {value: short_number(value) for value in shown} == shown


def test_progress_is_silent_when_piped_and_draws_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for file in (io.StringIO(), Terminal()):
        with bar("paged", 10, file) as ended:
            ended(10)
        assert bool(file.getvalue()) == file.isatty()
        assert ("paged" in file.getvalue()) == file.isatty()


def test_a_table_that_is_too_wide_leaves_out_what_says_least_and_names_it():
    rows = rows_of(**{column.metric: [0.1, 0.2] for column in COLUMNS})
    for row in rows:
        row.metrics.update(preemptions=0, prefix_hit_rate=0.5)
    leading = [{"block_size": "16", "max_num_batched_tokens": "8192"}] * 2
    text = printed(rows, leading=leading)
    head = text.splitlines()[1]
    assert max(map(len, text.splitlines())) <= 80
    assert "max_num_\n" in text.replace(" ", "\n")
    assert "…" not in text
    assert "Not shown, but in the results: " in text
    hidden = " ".join(text[text.index("Not shown") :].split()).removesuffix(".")
    assert hidden.endswith("preempt, hit %") or "preempt" in hidden
    assert "req/s" in head
    assert "tok/s" in head
    whole = printed(rows, leading=leading, width=120)
    assert "Not shown" not in whole


def test_even_long_names_fit_80_columns():
    rows = rows_of(**{column.metric: [0.1, 0.2] for column in COLUMNS})
    leading = [{"model.name": "a-model-" * 6, "path": "file-" * 12}] * 2
    text = printed(rows, leading=leading)
    assert max(map(len, text.splitlines())) <= 80
    assert "req/s" in text


def test_the_legend_explains_only_what_is_shown():
    rows = rows_of(requests_per_s=[1.0, 2.0], saturated_token_share=[0.5, 0.6])
    chosen = [c for c in COLUMNS if c.metric in rows[0].metrics]
    text = printed(rows, columns=chosen)
    assert "sat.: share of the pool that holds live KV while requests wait for memory." in " ".join(
        text.split()
    )
    assert "saved" not in text


def test_a_bar_of_a_sweep_leaves_nothing_behind():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    left = {}
    for transient in (False, True):
        file = Terminal()
        with bar("paged", 10, file, transient=transient) as ended:
            ended(10)
        left[transient] = not file.getvalue().endswith("\x1b[2K")
    assert left == {False: True, True: False}


def test_the_limit_of_each_allocator_stands_below_the_table_where_it_is_known():
    rows = rows_of(requests_per_s=[1.0, 2.0, 3.0])
    assert "Limited by" not in printed(rows)
    for place, shares in enumerate(({"memory": 0.961}, {"sequences": 0.7, "memory": 0.3}, {})):
        for limit in ("nobody", "memory", "sequences", "tokens", "preemption", "policy"):
            if shares:
                rows[place].metrics[f"limited_by_{limit}_share"] = shares.get(limit, 0.0)
    text = printed(rows)
    first = "\nLimited by, % of the time: contiguous_max memory 96,\n"
    assert f"{first}contiguous_pow2 sequences 70.\n" in text
    assert max(map(len, text.splitlines())) <= 80
