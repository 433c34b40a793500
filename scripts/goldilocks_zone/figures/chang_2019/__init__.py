"""Figures after Chang (2019)."""
