"""KV-cache memory policies: bookkeeping in integers and NumPy arrays, nothing else."""
