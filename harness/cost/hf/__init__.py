"""Shapes of models from the config.json that Hugging Face keeps with each."""
