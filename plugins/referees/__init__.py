"""Shipped referees, one file or folder each."""
