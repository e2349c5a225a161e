"""Hydra configuration: the primary `config.yaml` and one folder for each group of options."""
