"""The `blip2` referee, and the captioning head that its checkpoints lack."""
