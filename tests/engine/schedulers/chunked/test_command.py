"""The whole command on a thousand prompts: conserved, complete, repeatable."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.inprocess import run_harness

BLOCKS, BLOCK_TOKENS, REQUESTS = 2047, 16, 1000


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    rng = np.random.default_rng(11)
    stems = rng.integers(0, 32000, (8, 256))
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    with path.open("w") as file:
        for i in range(REQUESTS):
            stem = stems[rng.integers(8), : rng.integers(1, 256)]
            own = rng.integers(0, 32000, rng.integers(1, 300))
            record = {
                "id": f"r{i}",
                "prompt_token_ids": np.concatenate([stem, own]).tolist(),
                "output_len": int(rng.integers(1, 300)),
            }
            file.write(json.dumps(record) + "\n")
    return path


def command(prompts, run_dir, prefix_index):
    done = run_harness(
        "+workload=trace", f"workload.path={prompts}", "engine=chunked", "allocator=[paged]",
        f"kv_tokens={BLOCKS * BLOCK_TOKENS}", f"++allocators.paged.prefix_index={prefix_index}",
        "report=none", f"hydra.run.dir={run_dir}", cwd=run_dir.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads((run_dir / "summary.json").read_text())
    return summary["rows"][0], pd.read_parquet(run_dir / "timeline.parquet")


@pytest.mark.parametrize("prefix_index", ["none", "hash"])
def test_a_thousand_requests_on_2047_blocks(prompts, tmp_path, prefix_index):
    row, timeline = command(prompts, tmp_path / "first", prefix_index)
    assert row["status"] == "ok", row["reason"]
    metrics = row["metrics"]
    assert metrics["finished_requests"] == REQUESTS
    categories = ["token", "reserved", "internal", "external", "cached", "idle"]
    total = sum(timeline[f"{name}_bytes"] for name in categories)
    assert total.nunique() == 1
    assert timeline["blocks_in_use"].max() <= BLOCKS
    assert timeline["preemptions"].sum() == metrics["preemptions"] > 0
    assert timeline["waiting"].iloc[-1] == timeline["running"].iloc[-1] == 0
    lost = (timeline["running"] + timeline["waiting"]).diff().dropna()
    assert (lost <= 0).all(), "a request came back after its end"
    if prefix_index == "none":
        assert metrics["hit_tokens"] == 0
        assert metrics["evictions"] is None
    else:
        assert metrics["hit_tokens"] > 0
        assert metrics["evictions"] > 0
    _, again = command(prompts, tmp_path / "second", prefix_index)
    pd.testing.assert_frame_equal(timeline, again)
