"""The `blip2` referee, and its captioning (ITG) head, which transformers checkpoints lack."""
