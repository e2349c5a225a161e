"""What watches a run without changing it: memory maps, traces."""
