"""Attention and cache kernels, and KV memory that really exists."""
