"""The contracts of the kinds of plugins, one file each, and the conditioning of referees and priors."""
