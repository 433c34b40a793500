"""The paper: its numbers, tables and captions, and the check of its sources."""
