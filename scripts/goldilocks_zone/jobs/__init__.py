"""Logs, signals and locks of jobs."""
