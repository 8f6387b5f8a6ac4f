"""The tasks of the benchmark: what is asked, the baselines, and who gives the verdict."""
