"""Figures on energy-based models and joint embeddings (Dawid & LeCun 2023)."""
