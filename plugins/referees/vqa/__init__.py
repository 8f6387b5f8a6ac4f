"""The `vqa` referee, and the models that answer its questions."""
