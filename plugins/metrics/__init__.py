"""Metrics: how benchmarks measure finished images against their prompts, a file each."""
