"""Training recipes of the embedded checkpoints, each saved in the native format of its library."""
