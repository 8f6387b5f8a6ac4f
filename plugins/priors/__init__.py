"""Shipped priors, one file or folder each."""
