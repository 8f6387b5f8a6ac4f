"""Diagnostics: the machine and the checkpoints that a config needs, and the smoothness of a run's loss."""
