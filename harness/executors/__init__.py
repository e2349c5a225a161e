"""Executors run the engine's plans: on a simulated clock, or on a real model."""
