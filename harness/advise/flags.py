"""The flags of two servers that correspond to a setting, where they have any.

vLLM: its engine arguments at commit 002f10e (`vllm/config/cache.py`, `scheduler.py`, after 0.27).
SGLang: its page of server arguments at commit 004813e, 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: of which the names are
VERSIONS = {"vLLM": "after 0.27 (002f10e)", "SGLang": "0.5 (004813e)"}


@dataclass(frozen=True)
class Flag:
    """A knob in a server: {} is the value; values: those that are other flags; note: what differs.

    Values that neither has a flag for are None.
    """

    text: str | None = None
    values: Mapping[str, str | None] | None = None
    note: str = ""

    def of(self, value: str) -> str | None:
        """Return the flag for a value; None where there is none."""
        if self.values is not None and value in self.values:
            return self.values[value]
        return None if self.text is None else self.text.format(value)


VLLM: Mapping[str, Flag] = {
    "block_size": Flag("--block-size {}", note="a kernel may take a few sizes only"),
    "max_num_seqs": Flag("--max-num-seqs {}"),
    "token_budget": Flag("--max-num-batched-tokens {}", {"null": None}),
    "prefix_index": Flag(
        values={
            "none": "--no-enable-prefix-caching",
            "hash": "--enable-prefix-caching",
            "radix": "--enable-prefix-caching",
        },
        note="on unless it is turned off; by hashes of blocks",
    ),
    "offload": Flag(values={"true": "--kv-offloading-size GIB", "false": None}),
    "watermark": Flag("--watermark {}", {"0.0": None}, note="newer than 0.20"),
    "gpus": Flag("--tensor-parallel-size {}", {"1": None}),
    "kv_dtype": Flag(
        "--kv-cache-dtype {}",
        {
            "auto": None,
            "fp32": None,
            "fp16": "--kv-cache-dtype float16",
            "bf16": "--kv-cache-dtype bfloat16",
            "int8": "--kv-cache-dtype int8_per_token_head",
        },
        note="fp8 with scales of 1 where the checkpoint has none",
    ),
}
SGLANG: Mapping[str, Flag] = {
    "block_size": Flag("--page-size {}"),
    "max_num_seqs": Flag("--max-running-requests {}"),
    "token_budget": Flag(
        "--chunked-prefill-size {}",
        {"null": None},
        note="counts tokens of prompts, not those of decodes",
    ),
    "prefix_index": Flag(
        values={"none": "--disable-radix-cache", "hash": None, "radix": None},
        note="on unless it is turned off; a radix tree",
    ),
    "eviction": Flag(
        "--radix-eviction-policy {}", {"fifo": None, "s3fifo": None}, note="lru or lfu"
    ),
    "offload": Flag(values={"true": "--enable-hierarchical-cache", "false": None}),
    "gpus": Flag("--tp-size {}", {"1": None}),
    "kv_dtype": Flag(
        values={"fp8": "--kv-cache-dtype fp8_e4m3", "bf16": "--kv-cache-dtype bf16"},
        note="fp8 with scales of 1 where the checkpoint has none",
    ),
}
SERVERS: Mapping[str, Mapping[str, Flag]] = {"vLLM": VLLM, "SGLang": SGLANG}
#: of which these servers' allocators are
FAMILY = "paged"


def flags(server: str, values: Mapping[str, str], idle: frozenset[str]) -> list[str]:
    """Return a server's flags for values of knobs.

    idle: knobs of which no value is better than another; a server's own default does as well there.
    """
    known = SERVERS[server]
    found = [known[n].of(value) for n, value in values.items() if n in known and n not in idle]
    return [each for each in found if each is not None]


def missing(server: str, values: Mapping[str, str]) -> list[str]:
    """Return the knobs that are set and that a server has no flag for, as `name=value`."""
    known = SERVERS[server]
    return [
        f"{name}={value}"
        for name, value in values.items()
        if name not in known or (known[name].of(value) is None and not _is_default(name, value))
    ]


def _is_default(name: str, value: str) -> bool:
    return value in ("null", "0.0", "false") or (name, value) in {
        ("gpus", "1"),
        ("kv_dtype", "auto"),
        ("prefix_index", "hash"),
        ("prefix_index", "radix"),
    }
