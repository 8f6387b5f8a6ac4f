"""The embedded world: scenes whose truth is known, captions, a judge, and small checkpoints in native formats."""
