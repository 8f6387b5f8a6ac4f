"""The `image` referee, and the DINOv2 features that it can compare."""
