"""The `vsd` prior, and the low-rank adapters that it trains."""
