"""Spectra of symmetric matrices of any origin: summaries, probe estimators, Lanczos iterations."""
