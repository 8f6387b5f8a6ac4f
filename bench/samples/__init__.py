"""Samples of generators: the embedded diffusion models, and any pipeline of diffusers, as variants."""
