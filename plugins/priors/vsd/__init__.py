"""The `vsd` prior, and its low-rank adapters."""
