"""What the report shows of each step's results, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from harness.command.tables import cell_text, markdown_table

MIB, KIB = 2**20, 2**10
Record = dict[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table, nothing if it has no rows."""
    rows = list(rows)
    return markdown_table(head, rows) if rows else ""


def _environment(results: Record) -> list[str]:
    rows = [
        (r["backend"], r["dtype"], r["page_tokens"] or "contiguous", r["ok"], r["reason"])
        for r in results["attention"]["rows"]
    ]
    return [table(("back end", "type", "page", "runs", "reason"), rows)]


def _kernels(results: Record) -> list[str]:
    checked = [
        (r["backend"], r["mode"], r["dtype"], r["head_dim"], r["layout"], r["status"],
         r["error"], r["tolerance"], r["reason"])
        for r in results["correctness"] if r["status"] != "unsupported"
    ]  # fmt: skip
    refused = len(results["correctness"]) - len(checked)
    head = ("back end", "mode", "type", "head", "layout", "status", "error", "allowed", "reason")
    return [
        f"Largest difference from float64; {refused} refused with a reason (in the record).",
        table(head, checked),
    ]


def _curve(results: Record) -> list[str]:
    ceiling = results["ceiling"]
    read, flops = ceiling["read_bytes_s"] / 1e9, ceiling["product_flops_s"] / 1e12
    timed = [row for row in results["rows"] if row["status"] == "ok"]
    cells: dict[str, list[Any]] = {}
    heads: list[str] = []
    for row in (row for row in timed if "ratio" in row and row["layout"] != "contiguous"):
        heads += [name] if (name := layout_name(row)) not in heads else []
        cells.setdefault(batch_name(row), []).append((name, overhead_text(row)))
    by_layout = [
        (name, *(dict(found).get(head) for head in heads)) for name, found in cells.items()
    ]
    times = [
        (batch_name(r), layout_name(r), 1e6 * r["median_s"], 1e6 * r["p90_s"], 1e6 * r["floor_s"],
         r["bound"], f"{r['share']:.0%}", 1e6 * r["call_s"])
        for r in timed
    ]  # fmt: skip
    other = {
        (r["backend"], layout_name(r), r["reason"]) for r in results["rows"] if r["status"] != "ok"
    }
    if "not_mapped" in results:
        other.add(("", "virtual", results["not_mapped"]))
    return [
        f"Times in {results['dtype']}, of {results['rounds']} rounds in which all contenders of a "
        f"batch take turns in an order drawn anew (seed {results['seed']}); "
        f"{results['flushed_bytes']} bytes read before each sample. Over the time of the same back "
        f"end's contiguous rows in the same round: median and interval ({results['interval']}).",
        table(("batch", *heads), by_layout),
        f"Floor: the batch's bytes at the {read:.4g} GB/s that a reduction reads here, or its "
        f"FLOPs at the {flops:.4g} TFLOP/s of a matrix product, whichever takes longer; share: "
        "floor over median. Call: as the host sees it, launches included.",
        table(("batch", "layout", "us", "p90 us", "floor us", "bound", "share", "call us"), times),
        table(("not timed", "layout", "reason"), sorted(other, key=str)),
    ]


def batch_name(row: Record) -> str:
    """Return what is computed, by which back end."""
    past = row["tokens"] - row["new_tokens"]
    tokens = f"{row['tokens']:g}" if row["mode"] == "decode" else f"{row['new_tokens']:g}"
    behind = f" behind {past:g}" if row["mode"] == "prefill" and past else ""
    ragged = " ragged" if row["rows"] == "ragged" else ""
    # Records of before had neither.
    seen = f", window {row['window']}" if row.get("window") else ""
    seen += ", sinks" if row.get("sinks") else ""
    shape = f"{row['heads']}/{row['kv_heads']}x{row['head_dim']}"
    rows = f"{row['batch']} x {tokens}{behind}{ragged}"
    return f"{row['backend']} {row['mode']} {rows}, {shape}{seen}"


def layout_name(row: Record) -> str:
    """Return where rows lie."""
    page = row["page_tokens"]
    pages = {None: "", 1: " of 1 token"}.get(page, f" of {page} tokens")
    words = {"paged": "pages", "padded": "padded pages", "virtual": "mapped pages"}
    return f"{words[row['layout']]}{pages}" if row["layout"] != "contiguous" else "contiguous"


def overhead_text(row: Record) -> str:
    """Return how much longer than contiguous, in percent, with its interval."""
    middle, low, high = (100 * (row[n] - 1) for n in ("ratio", "ratio_low", "ratio_high"))
    return f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"


def _vmm(results: Record) -> list[str]:
    parts = _beside(results["while_mapping"]) if "while_mapping" in results else []
    if "granularity_bytes" not in results:
        return parts
    least = results["granularity_bytes"]
    parts.append(f"Granularity: {least['minimum']} bytes, recommended {least['recommended']}.")
    rows = [
        (r["call"], r["page_bytes"] / MIB, r["samples"], 1e6 * r["median_s"], 1e6 * r["p99_s"])
        for r in results["rows"]
    ]
    parts.append(table(("call", "page MiB", "calls", "median us", "p99 us"), rows))
    spans = [
        (r["pages"], r["page_bytes"] / MIB, r["way"],
         *(1e6 * r[part] / r["pages"] for part in ("map_s", "set_access_s", "unmap_s")),
         overhead_text(r))
        for r in results.get("spans", ())
    ]  # fmt: skip
    head = ("pages", "page MiB", "mapped by", "map us a page", "set_access us a page",
            "unmap us a page", "in all, over a call a page")  # fmt: skip
    parts.append(table(head, spans))
    refused = [(r["page_bytes"] / KIB, r["reason"] or "granted") for r in results["refused"]]
    return [*parts, table(("asked for, KiB", "the driver's answer"), refused)]


def _beside(found: Record) -> list[str]:
    row = (
        f"{found['batch']} x {found['tokens']}", 1e6 * found["alone_s"], 1e6 * found["mapping_s"],
        overhead_text(found), 1e6 * found["page_s"],
    )  # fmt: skip
    head = ("decode", "alone us", "while mapping us", "longer by", "map and unmap us a page")
    return [
        f"Decode beside a thread that maps without a pause, pages of "
        f"{found['page_bytes'] // KIB} KiB; {found['samples']} samples of {found['calls']} calls "
        f"each, in turns; {found['interval']}.",
        table(head, [row]),
    ]


def _identity(results: Record) -> list[str]:
    rows = [
        (r.get("model"), f"{r['mode']} {r['allocator']}", r["pressure"], r["status"],
         *(r.get(n) for n in ("preemptions", "swapped_slots", "hit_tokens", "differing_tokens")),
         "{} {}".format(*r["resident_difference_bytes"]) if "digest" in r else None, r["reason"])
        for r in results["cases"]
    ]  # fmt: skip
    head = ("model", "", "pressure", "tokens", "preempted", "slots swapped", "tokens hit",
            "tokens that differ", "resident, less what is told: least, most", "reason")  # fmt: skip
    same, resident = (cell_text(results[name]) for name in ("same_outputs", "resident_agrees"))
    return [
        f"Same tokens throughout: {same}. Resident memory agrees: {resident}.",
        table(head, rows),
    ]


def _serving(results: Record) -> list[str]:
    said = f"{results['requests']} requests a run, model {results['model']}, {results['dtype']}. "
    said += "Means over rounds, and their 95 % intervals by Student's t."
    shown = ("output_tokens_per_s", "ttft_p50_s", "tpot_p50_s", "mean_batch", "token_share",
             "preemptions", "steps", "map_s", "allocator_us_per_step")  # fmt: skip
    rows = [
        (r["run"], r["allocator"], r["status"], r["rounds"], *(_mean_text(r.get(n)) for n in shown),
         r["reason"])
        for r in results["rows"]
    ]  # fmt: skip
    head = ("run", "allocator", "status", "rounds", *shown, "reason")
    parts = [said, table(head, rows)]
    if "not_calibrated" in results:
        parts.append(f"Not calibrated: {results['not_calibrated']}.")
    if "simulated" not in results:
        return parts
    compared = list(results["errors"])
    errors = [
        (r["run"], r["allocator"], r["status"], *(_error_text(r.get(n)) for n in compared),
         r["reason"])
        for r in results["simulated"]
    ]  # fmt: skip
    parts.append(
        f"The same runs simulated with `{results['calibration']}` (cost_model=calibrated, "
        f"{results['calibration_rounds']} rounds): simulated over measured, less one; and both."
    )
    parts.append(table(("run", "allocator", "status", *compared, "reason"), errors))
    sizes = [
        f"{name} {found['median']:.1%} ({found['largest']:.1%})"
        for name, found in results["errors"].items() if found
    ]  # fmt: skip
    parts.append(f"Size of the error, median over rows (largest): {', '.join(sizes)}.")
    return parts


def _mean_text(found: Record | None) -> str:
    if found is None:
        return ""
    if found["low"] is None:
        return f"{found['mean']:.4g}"
    return f"{found['mean']:.4g} ({found['low']:.4g} to {found['high']:.4g})"


def _error_text(found: Record | None) -> str:
    if found is None or found["error"] is None:
        return ""
    return f"{found['error']:+.1%} ({found['simulated']:.4g}, {found['measured']:.4g})"


DRAWN: dict[str, Callable[[Record], list[str]]] = {
    "environment": _environment,
    "kernels": _kernels,
    "curve": _curve,
    "vmm": _vmm,
    "identity": _identity,
    "opt-13b": _serving,
    "llama-3-8b": _serving,
}
