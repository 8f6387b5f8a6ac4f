"""Benchmarks that other people published, as tasks: their prompts, their metrics, and their numbers."""
