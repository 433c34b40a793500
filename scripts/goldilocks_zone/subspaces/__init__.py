"""Random planes and spheres in parameter space, and projections into it."""
