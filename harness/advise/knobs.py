"""The knobs: which there are, the options they stand for, the values that are tried."""

from __future__ import annotations

from dataclasses import dataclass

#: allocators where the user names none, the first of which is a server's as it comes; not
#: contiguous_oracle and contiguous_pow2, which read the lengths of answers
ALLOCATORS = ("paged", "virtual", "contiguous_grow", "contiguous_max")
FIRST = ALLOCATORS[0]
ALLOCATOR, KV_DTYPE = "allocator", "kv_dtype"
#: the type of the KV that changes nothing of what a model says
AUTO = "auto"


@dataclass(frozen=True)
class Knob:
    """name: how it is called here and in `search=`.  option: of a run, with {allocator} in it.

    what: it does, in a line.  values: that are tried beside the default, as typed.
    allocators, policies: that have it; none: all.  needs: a knob and values of it, any of which
    must be set for this one to do anything.  alias: another name of the option.
    """

    name: str
    option: str
    what: str
    values: tuple[str, ...] = ()
    allocators: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    needs: tuple[str, tuple[str, ...]] | None = None
    alias: str = ""


#: those that are mostly worth most come first, for a search may be cut off by its budget
KNOBS = (
    Knob(ALLOCATOR, "allocator", "how KV memory is handed out", ()),
    Knob(
        "gpus",
        "hardware.count",
        "GPUs of a server, by tensor parallelism",
        ("1", "2", "4", "8"),
    ),
    Knob(
        "max_num_seqs",
        "engine.max_num_seqs",
        "sequences of a batch at most",
        ("64", "128", "256", "512", "1024"),
    ),
    # Its values are those that the user allows: a model may say other things with another one.
    Knob(KV_DTYPE, "kv_dtype", "what the KV is stored in", alias="model.kv_dtype"),
    Knob(
        "prefix_index",
        "allocators.{allocator}.prefix_index",
        "finds prompts that are in memory already",
        ("none", "hash", "radix"),
        ("paged", "virtual"),
    ),
    Knob(
        "token_budget",
        "engine.max_num_batched_tokens",
        "tokens of a step at most",
        ("512", "1024", "2048", "4096", "8192", "16384"),
    ),
    Knob(
        "block_size",
        "allocators.{allocator}.block_size",
        "tokens of a block",
        ("8", "16", "32", "64", "128"),
        ("paged",),
    ),
    Knob(
        "page_size",
        "allocators.{allocator}.page_size",
        "bytes that are mapped at once",
        ("64KiB", "256KiB", "2MiB"),
        ("virtual",),
    ),
    Knob(
        "layout",
        "allocators.{allocator}.layout",
        "tensors for each layer, or two that hold all",
        ("per_layer", "sliced"),
        ("virtual",),
    ),
    Knob(
        "eviction",
        "allocators.{allocator}.eviction",
        "which cached block gives way first",
        ("lru", "lfu", "fifo", "s3fifo"),
        ("paged",),
        needs=("prefix_index", ("hash", "radix")),
    ),
    Knob(
        "offload",
        "allocators.{allocator}.offload",
        "keeps evicted blocks in host memory",
        ("false", "true"),
        ("paged",),
        needs=("prefix_index", ("hash", "radix")),
    ),
    Knob(
        "preemption",
        "engine.preemption",
        "what happens to whoever must make room",
        ("recompute", "swap"),
        policies=("continuous", "static", "orca"),
    ),
    Knob(
        "expected_output",
        "engine.expected_output_tokens",
        "output that must fit for a request to be let in",
        ("0", "64", "256"),
        policies=("continuous", "static", "orca"),
    ),
    Knob(
        "watermark",
        "allocators.{allocator}.watermark",
        "share of the blocks that admission leaves free",
        ("0.0", "0.01", "0.05"),
        ("paged",),
    ),
)
BY_NAME = {knob.name: knob for knob in KNOBS}
