"""The contracts of the six kinds of plugins, one file each, and the conditioning of referees and priors."""
