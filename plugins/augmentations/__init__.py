"""Shipped augmentations, over kornia."""
