"""Estimates with confidence intervals, bands, and tests of hypotheses."""
