"""Shipped canvases, one file each."""
