"""Figures after Fort & Scherlis (2019)."""
