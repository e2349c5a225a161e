"""What must be resident, counted from the allocator alone."""

from kernels.memory.os_memory import OS_PAGE_BYTES


def expected_bytes(allocator):
    """What the allocator's own state says is held, in whole pages of the operating system."""
    active, cached, _ = allocator.balance()
    if allocator.geometry.layer_groups:
        if allocator.pages_per_group:
            return (active + cached) * allocator.page_bytes
        return -(-allocator.geometry.pool_bytes // OS_PAGE_BYTES) * OS_PAGE_BYTES
    if allocator.pages_per_group:
        return (active + cached) * allocator.pages_per_group * allocator.page_bytes
    g = allocator.geometry
    tokens = g.capacity_tokens // g.page_tokens * g.page_tokens
    return -(-tokens * g.bytes_per_token // OS_PAGE_BYTES) * OS_PAGE_BYTES
