"""Estimates with intervals, bands, and tests of hypotheses."""
