"""Random planes and spheres in parameter space, and the projections into it."""
