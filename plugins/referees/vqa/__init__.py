"""The `vqa` referee, and the question-answering models that it uses."""
