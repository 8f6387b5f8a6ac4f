"""Parsers of prompts."""
