"""Reports on a user's own model: the curvature of its loss, its own Goldilocks zone, and what both say."""
