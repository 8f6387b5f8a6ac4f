"""Shipped priors."""
