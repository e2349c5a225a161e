"""A sweep: its points, the jobs that Hydra's launchers run, what is said meanwhile, the table."""
