"""Spectra of symmetric matrices, whatever their origin: summaries, estimators, Lanczos iterations."""
