"""The six contracts that plugins keep, one a file, and what referees and priors are conditioned on."""
