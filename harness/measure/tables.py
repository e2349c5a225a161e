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
    parts = [
        f"Largest difference from float64; {refused} refused with a reason (in the record).",
        table(head, checked),
    ]
    floor = results["floor"]
    parts.append(
        f"Times in {floor['dtype']}: medians; {floor['flushed_bytes']} bytes read before "
        f"each sample. Floor: bytes at the {floor['copy_bytes_s'] / 1e9:.4g} GB/s that a copy "
        f"reads and writes here, or FLOPs at the {floor['product_flops_s'] / 1e12:.4g} TFLOP/s of "
        "a matrix product, whichever takes longer. Call: as the host sees it, launches included."
    )
    times = [
        (f"{r['backend']} {r['mode']}", f"{r['heads']}/{r['kv_heads']}x{r['head_dim']}",
         r["batch"], r["past_tokens"], r["new_tokens"], r["page_tokens"] or "contiguous",
         1e6 * r["median_s"], 1e6 * r["floor_s"], r["ratio"], 1e6 * r["call_s"])
        for r in results["times"] if r["status"] == "ok"
    ]  # fmt: skip
    head = ("", "heads", "batch", "past", "new", "page", "us", "floor us", "ratio", "call us")
    parts.append(table(head, times))
    other = {
        (r["backend"], r["page_tokens"] or "contiguous", r["reason"])
        for r in results["times"] if r["status"] != "ok"
    }  # fmt: skip
    return [*parts, table(("not timed", "page", "reason"), sorted(other, key=str))]


def _vmm(results: Record) -> list[str]:
    least = results["granularity_bytes"]
    parts = [f"Granularity: {least['minimum']} bytes, recommended {least['recommended']}."]
    rows = [
        (r["call"], r["page_bytes"] / MIB, r["samples"], 1e6 * r["median_s"], 1e6 * r["p99_s"])
        for r in results["rows"]
    ]
    parts.append(table(("call", "page MiB", "calls", "median us", "p99 us"), rows))
    refused = [(r["page_bytes"] / KIB, r["reason"] or "granted") for r in results["refused"]]
    return [*parts, table(("asked for, KiB", "the driver's answer"), refused)]


def _identity(results: Record) -> list[str]:
    rows = [
        (f"{r['mode']} {r['allocator']}", r["pressure"], r["status"], r.get("preemptions"),
         r.get("swapped_slots"), r.get("hit_tokens"), r.get("differing_tokens"),
         "{} {}".format(*r["resident_difference_bytes"]) if "digest" in r else None, r["reason"])
        for r in results["cases"]
    ]  # fmt: skip
    head = ("", "pressure", "tokens", "preempted", "slots swapped", "tokens hit", "tokens that "
            "differ", "resident, less what is told: least, most", "reason")  # fmt: skip
    same, resident = (cell_text(results[name]) for name in ("same_outputs", "resident_agrees"))
    return [
        f"Same tokens throughout: {same}. Resident memory agrees: {resident}.",
        table(head, rows),
    ]


def _comparison(results: Record) -> list[str]:
    names = [name for name in results["rows"][0] if name not in ("reason", "output_digest")]
    rows = [[row.get(name) for name in names] for row in results["rows"]]
    config = results["config"]
    said = f"{config['num_requests']} requests, model {config['model']['name']}, "
    said += f"{config['executor']['dtype']} on {config['executor']['device']}. "
    said += f"The same outputs: {cell_text(results['same_outputs'])}."
    return [said, table(names, rows)]


def _calibrate(results: Record) -> list[str]:
    if "file" not in results:
        return []
    printed = f"```\n{results['run']['output'].strip()}\n```"
    return [f"The file: `{results['file']}`. What the command printed:", printed]


DRAWN: dict[str, Callable[[Record], list[str]]] = {
    "environment": _environment,
    "kernels": _kernels,
    "vmm": _vmm,
    "identity": _identity,
    "comparison": _comparison,
    "beam": _comparison,
    "calibrate": _calibrate,
}
