"""Shipped parsers of prompts, one file each."""
