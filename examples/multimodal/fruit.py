"""Draws fruit: a picture, measurements and a variety each, with values missing, and what shall be told of them."""

import numpy as np

# Measurements, and how often each was not made.
MISSING = {"weight": 0.05, "firmness": 0.2, "sound": 0.2, "temperature": 0.05}
VARIETIES = {"early": 0.6, "common": 1.0, "keeper": 1.6}  # and how well each keeps


def draw_fruit(size, seed, side=32):
    """Pictures [n, side, side, 3] in 0..1, measurements [n, 4], varieties [n], grades [n] and days [n].

    The picture shows ripeness and bruises, firmness and sound tell of softness, and nothing but the thermometer tells
    how warm the fruit is kept. The grade counts the faults (0: sound, 1: bruised or soft, 2: both); the days that it
    will keep follow from ripeness, temperature and variety. So each target needs the picture and the table.
    """
    generator = np.random.default_rng(seed)
    ripeness, softness = generator.uniform(size=size), generator.uniform(size=size)
    radius, temperature = generator.uniform(0.25, 0.4, size), generator.uniform(2, 22, size)
    bruises = generator.integers(1, 4, size) * generator.integers(0, 2, size)
    varieties = generator.integers(len(VARIETIES), size=size)
    pictures = np.stack([draw_picture(*each, side, generator) for each in zip(ripeness, radius, bruises, strict=True)])
    measurements = np.stack(
        [
            3000 * radius**3 * generator.normal(1, 0.1, size),
            80 - 60 * softness + generator.normal(0, 3, size),
            400 + 500 * (1 - softness) + generator.normal(0, 25, size),
            temperature,
        ],
        axis=1,
    )
    measurements[generator.uniform(size=measurements.shape) < list(MISSING.values())] = np.nan
    grades = (bruises > 0).astype("int32") + (softness > 0.5)
    keeps = np.array(list(VARIETIES.values()))[varieties]
    days = 20 * keeps * (1 - 0.8 * ripeness) * np.exp(-temperature / 15)
    return pictures, measurements.astype("float32"), varieties.astype("int32"), grades, days.astype("float32")


def draw_picture(ripeness, radius, bruises, side, generator):
    """One fruit before a noisy background, in light of any strength."""
    rows, columns = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    middle = generator.uniform(-0.08, 0.08, 2)
    distance = np.hypot(rows - middle[0], (columns - middle[1]) * generator.uniform(0.9, 1.1))
    picture = np.full((side, side, 3), generator.uniform(0.3, 0.6)) + generator.normal(0, 0.05, (side, side, 1))
    colour = np.array([0.35 + 0.5 * ripeness, 0.7 - 0.45 * ripeness, 0.15])
    shade = np.clip(1.15 - 0.8 * (distance / radius) ** 2, 0.3, 1)
    picture[distance < radius] = (shade[..., np.newaxis] * colour)[distance < radius]
    for _ in range(bruises):
        angle, far = generator.uniform(0, 2 * np.pi), 0.6 * radius * generator.uniform()
        row, column = middle + far * np.array([np.sin(angle), np.cos(angle)])
        bruise = np.hypot(rows - row, columns - column) < generator.uniform(0.05, 0.08)
        picture[bruise] = [0.25, 0.17, 0.1]
    picture = picture * generator.uniform(0.7, 1.2) + generator.normal(0, 0.02, picture.shape)
    return np.clip(picture, 0, 1).astype("float32")
