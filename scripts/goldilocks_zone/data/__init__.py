"""Datasets: official ones, users' own, and the examples of a study. May import storage and provenance."""
