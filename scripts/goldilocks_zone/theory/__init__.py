"""Closed forms that measurements are compared with."""
