"""Training recipes of the embedded checkpoints, each saved in its library's native format."""
