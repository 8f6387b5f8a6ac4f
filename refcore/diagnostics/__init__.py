"""What is measured around a run: the machine and its checkpoints, and the smoothness of a loss."""
