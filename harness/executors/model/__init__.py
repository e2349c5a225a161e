"""Real runs: a decoder of torch serves the engine's plans on memory that the grants move."""
