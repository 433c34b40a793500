"""Figures: style, panels and curves that they share. Imports no torch."""
