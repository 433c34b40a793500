"""The paper: LaTeX text, captions, numbers and the check of its sources."""
