"""Models that answer questions about images, differentiable in the image."""
