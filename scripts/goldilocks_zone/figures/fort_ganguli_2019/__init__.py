"""Figures after Fort & Ganguli (2019)."""
