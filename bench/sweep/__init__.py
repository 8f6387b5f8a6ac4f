"""Sweeps: many variants of one config, on a grid or proposed by a search, and the best of them."""
