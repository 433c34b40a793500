"""Three concentric annuli in the plane: the demonstration data of Vysogorets, Dawid & Kempe (2024)."""

import numpy as np

from goldilocks_zone.randomness import stream

CLASSES, TRAINING, TEST = 3, 6000, 1500
# Radius of the outermost edge: annulus k lies between (2k + 1) and (2k + 2) / (2 · CLASSES) of it.
CENTRE = 127.5


def made() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(training, test) pairs of points (n, 1, 1, 2), coordinates in grey levels from 0 to 255, and labels (n,).

    Points are uniform over the area of their annulus, classes balanced, and the same at every call.
    """
    random, count = stream("annuli"), TRAINING + TEST
    labels = random.permutation(np.arange(count) % CLASSES).astype(np.uint8)
    inner, outer = ((2.0 * labels + edge) / (2 * CLASSES) for edge in (1, 2))
    radii = np.sqrt(inner**2 + random.random(count) * (outer**2 - inner**2))
    angles = 2 * np.pi * random.random(count)
    points = CENTRE + CENTRE * radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    points = np.rint(points).astype(np.uint8)[:, None, None]
    return (points[:TRAINING], labels[:TRAINING]), (points[TRAINING:], labels[TRAINING:])
