"""Figures of hypotheses that go beyond the reproduced works."""
