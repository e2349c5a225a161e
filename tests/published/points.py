"""Published measurements as points: one measured time each, and how a profile predicts it.

tpot    a server in steady state.  By Little's law the batch is the measured rate times the
        measured time from first token to last; of its steps, as many as requests arrive in a
        step's time compute a prompt.
ttft    the front end, half a step that runs when the request comes, one more that is planned by
        then where scheduling is asynchronous, and the step of its prompt
step    a fitted step time, at a batch and a context
batch   a static batch from start to end
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from allocators.base import BLOCK_TABLE_ENTRY_BYTES
from harness.cost import CostSpec, HardwareSpec, ModelShape, Roofline, SoftwareSpec, Work
from tests.places import ROOT, shipped
from tests.published.served import lengths_of

PUBLISHED = ROOT / "results" / "published"
#: vLLM's default; SGLang's is 1, which its kernels are written for
BLOCK_TOKENS = 16
Predict = Callable[[SoftwareSpec], float]


@dataclass(frozen=True)
class Point:
    """A measured time in ms, and the prediction of a profile."""

    name: str
    measured_ms: float
    predict_ms: Predict

    def error(self, software: SoftwareSpec) -> float:
        """Return the relative error."""
        return self.predict_ms(software) / self.measured_ms - 1


@cache
def table(name: str) -> list[dict[str, str]]:
    with (PUBLISHED / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def server(name: str) -> dict[str, str]:
    return next(row for row in table("servers") if row["id"] == name)


# -- what a row says ---------------------------------------------------------------------------
def shapes_of(row: dict[str, str]) -> tuple[ModelShape, HardwareSpec]:
    """Return the row's model and GPUs, with what its options say of them."""
    model = shipped(ModelShape, "model", row["conf_model"])
    hardware = shipped(HardwareSpec, "hardware", row["conf_hardware"])
    for option in row["options"].split():
        key, _, value = option.partition("=")
        group, _, name = key.partition(".")
        if group == "model" and name:
            model = replace(model, **{name: int(value)})
        elif group == "hardware" and name and name != "count":
            hardware = replace(hardware, **{name: float(value)})
    return model, replace(hardware, count=int(row["gpus"]))


def tpot_ms_of(row: dict[str, str]) -> float:
    """Return the mean (else the median) time a token after the first."""
    if row["tpot_mean_ms"] or row["tpot_p50_ms"]:
        return float(row["tpot_mean_ms"] or row["tpot_p50_ms"])
    decode_ms = float(row["e2e_mean_ms"]) - float(row["ttft_mean_ms"] or row["ttft_p50_ms"])
    return decode_ms / (lengths_of(row)[1] - 1)


def _tables(rows: int, longest: int) -> dict[str, int]:
    """Return what a step's work says of its block tables, each as wide as the longest row."""
    entries = rows * -(-longest // BLOCK_TOKENS)
    return {"block_tokens": BLOCK_TOKENS, "table_bytes": entries * BLOCK_TABLE_ENTRY_BYTES}


def _steady(
    row: dict[str, str], hit: bool, mixed: bool
) -> Callable[[Roofline], tuple[float, float, float]]:
    """Return from a roofline to (a decode step, one with a prompt beside it, its share), in s."""
    tpot_s = tpot_ms_of(row) / 1e3
    prompt, output = (int(mean) for mean in lengths_of(row))
    decode_s = tpot_s * (output - 1)
    if row["rate_per_s"]:
        rate = float(row["requests_per_s"] or row["rate_per_s"])
        batch = max(1, round(rate * decode_s))
    else:
        batch = int(row["concurrency"])
        rate = batch / (decode_s + float(row["ttft_mean_ms"] or row["ttft_p50_ms"]) / 1e3)
    context = int(batch * (prompt + output / 2))
    # A prompt that was seen before has a last block to compute, of half a block in the mean.
    new = 8 if hit else prompt
    share = min(1.0, rate * tpot_s)

    def times(roofline: Roofline) -> tuple[float, float, float]:
        decode = {
            "decode_seqs": batch,
            "decode_context_tokens": context,
            **_tables(batch, prompt + output),
        }
        piece = {"prefill_new": np.array([new]), "prefill_past": np.array([prompt - new])}
        alone = roofline.step_s(Work(**decode, sampled=batch))
        if mixed:
            return alone, roofline.step_s(Work(**decode, **piece, sampled=batch + 1)), share
        prompt_s = roofline.step_s(Work(**piece, sampled=1, **_tables(1, prompt)))
        return alone, alone + prompt_s, share

    return times


def server_points(
    names: Sequence[str], *, hit: bool = False, mixed: bool = True, ttft: bool = True
) -> list[Point]:
    """Return a point for the time a token of each row, and one for its time to first token.

    `hit`: prompts have been seen before.  `mixed`: a prompt is computed beside those that decode,
    and not in a step of its own.
    """
    points = []
    for row in map(server, names):
        times, shapes = _steady(row, hit, mixed), shapes_of(row)

        def tpot(software: SoftwareSpec, times=times, shapes=shapes) -> float:
            alone, beside, share = times(Roofline(*shapes, CostSpec(), software))
            return 1e3 * (alone + share * (beside - alone))

        def first(software: SoftwareSpec, times=times, shapes=shapes, tpot=tpot) -> float:
            alone, beside, _ = times(Roofline(*shapes, CostSpec(), software))
            around_us = software.request_us + software.response_us
            waits = 1.5 if software.overlapped else 0.5  # steps that run, or are planned, before
            own_s = beside if mixed else beside - alone
            return around_us / 1e3 + waits * tpot(software) + 1e3 * own_s

        points.append(Point(f"{row['id']} tpot", tpot_ms_of(row), tpot))
        # The prompt of the mean is that of the median where all are alike, or spread evenly.
        even = hit or not row["ttft_mean_ms"]
        first_ms = row["ttft_p50_ms"] if even else row["ttft_mean_ms"]
        if ttft and first_ms:
            points.append(Point(f"{row['id']} ttft", float(first_ms), first))
    return points


# -- fitted step times ---------------------------------------------------------------------------
def step_points(system: str, model: str, conf: str, ranks: Sequence[int]) -> list[Point]:
    """Return points of a fit of decode steps, at batches and contexts inside what it was fitted on.

    The fits have a line below 95 sequences and another from there on.
    """
    points = []
    hardware = shipped(HardwareSpec, "hardware", "a100-80gb")
    shape = shipped(ModelShape, "model", conf)
    for row in table("step_fits"):
        if not (row["system"].startswith(system) and row["model"] == model):
            continue
        if row["phase"] != "decode" or int(row["gpus"]) not in ranks:
            continue
        batches = (8, 32, 64) if row["range"].startswith("below") else (128, 192)
        machine = replace(hardware, count=int(row["gpus"]))
        for batch in batches:
            context = 300 * batch
            step_ms = (
                float(row["constant_ms"])
                + float(row["first_ms"]) * context
                + float(row["second_ms"]) * batch
            )
            decode = {"decode_seqs": batch, "decode_context_tokens": context}
            work = Work(**decode, sampled=batch, **_tables(batch, context // batch))

            def predict(software: SoftwareSpec, machine=machine, work=work) -> float:
                return 1e3 * Roofline(shape, machine, CostSpec(), software).step_s(work)

            points.append(Point(f"{model} x{row['gpus']} batch {batch}", step_ms, predict))
    return points


# -- static batches ------------------------------------------------------------------------------
def batch_points(model: str, conf: dict[str, int], ranks: int, **only: int) -> list[Point]:
    """Return points of FasterTransformer's batches, from the prompt to the last token."""
    hardware = replace(shipped(HardwareSpec, "hardware", "a100-80gb"), count=ranks)
    shape = replace(shipped(ModelShape, "model", "opt-175b"), vocab=51200, **conf)
    points = []
    for row in table("static_batches"):
        wanted = {"system": "FasterTransformer", "model": model, "gpus": str(ranks)}
        wanted |= {name: str(value) for name, value in only.items()}
        if any(row[name] != value for name, value in wanted.items()):
            continue
        batch, prompt, output = (
            int(row[name]) for name in ("batch", "prompt_tokens", "output_tokens")
        )

        def predict(software: SoftwareSpec, batch=batch, prompt=prompt, output=output) -> float:
            cost = Roofline(shape, hardware, CostSpec(), software)
            first = Work(
                prefill_new=np.full(batch, prompt), prefill_past=np.zeros(batch, dtype=np.int64),
                sampled=batch,
            )  # fmt: skip
            rest = cost.decode_window_s(batch, batch * (prompt + 1), output - 1, 0, 0)
            return 1e3 * (cost.step_s(first) + float(rest.sum()))

        name = f"{model} x{ranks} batch {batch}, {prompt} in, {output} out"
        points.append(Point(name, float(row["latency_ms"]), predict))
    return points
