"""Reports on a user's own model: the curvature of its loss, its Goldilocks zone, and a diagnosis of both."""
