"""Shipped canvases."""
