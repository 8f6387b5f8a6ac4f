"""Shipped augmentations: geometric ones, which are matrices, and photometric ones, which change pixels."""
