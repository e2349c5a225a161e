"""vAttention: contiguous virtual ranges, physical page-groups mapped on demand.

Follows Prabhu et al., ASPLOS 2025 (arXiv 2405.04437v3), and its code (github.com/microsoft/
vattention).  `policy` is the allocator; `ranges` keeps which range maps what; `background` is the
thread beside a step, by the code's rules or the paper's; `prefix` shares page-groups of one prefix.
docs/virtual.md states every rule with its source.
"""

from allocators.virtual.policy import Virtual
from allocators.virtual.shape import PAGE_BYTES, page_group_tokens

__all__ = ["PAGE_BYTES", "Virtual", "page_group_tokens"]
