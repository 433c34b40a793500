"""Figures after Vysogorets et al. (2024)."""
