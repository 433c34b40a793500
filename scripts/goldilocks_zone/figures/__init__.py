"""Figures: one module each, and the panels, curves and styles that they share."""
