"""Datasets: the official ones, users' own, and the examples that a study takes from them."""
