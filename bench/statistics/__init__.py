"""Intervals, pairs of images, hacks, and what a panel says of a variant."""
