"""Figures after Li et al. (2018)."""
