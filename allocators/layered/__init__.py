"""Policies for models whose layers keep different KV (layer groups)."""
