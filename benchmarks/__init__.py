"""Benchmarks of the engines against other methods, run by `make bench`: a module per table, and one for the figures."""
