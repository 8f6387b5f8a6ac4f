"""Shipped referees."""
