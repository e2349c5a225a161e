"""The example files of benchmark clients, and what all of them tell of."""

import json
from pathlib import Path

from harness.replay.arrivals import ArrivalSpec
from harness.replay.formats import read
from harness.replay.measured import measured_run

FILES = Path(__file__).parent / "formats"
#: files with the start times of their requests, and what has to be stated to read them
TIMED = {
    "vllm_bench_serve.json": {},
    "guidellm.json": {},
    "guidellm_v0.3.json": {},
    "aiperf_profile_export.jsonl": {},
    "genai_perf_profile_export.json": {"prompt_tokens": "words"},
    "plain.csv": {},
}
UNTIMED = ("vllm_benchmark_serving_2025.json", "sglang_bench_serving.jsonl")
SUMMARIES = (
    "vllm_bench_serve_summary.json",
    "sglang_bench_serving_summary.jsonl",
    "aiperf_profile_export_aiperf.json",
    "aiperf_profile_export_aiperf.csv",
)
#: those that say nothing of single tokens
WITHOUT_GAPS = ("guidellm.json", "guidellm_v0.3.json", "plain.csv")
#: those that leave out the request that failed
WITHOUT_FAILURE = ("genai_perf_profile_export.json", "plain.csv")


def measured(path, prompt_tokens=None, run=None, **stated):
    """Read a measured file as the command does."""
    path = FILES / path
    return measured_run(str(path), read(path, run), ArrivalSpec(**stated), prompt_tokens)


def altered(tmp_path, name, change):
    """A copy of an example whose first document is changed by `change`."""
    text = (FILES / name).read_text()
    document = json.loads(text.splitlines()[0] if name.endswith("l") else text)
    document = change(document) or document
    path = tmp_path / name
    path.write_text(json.dumps(document) + "\n")
    return path
