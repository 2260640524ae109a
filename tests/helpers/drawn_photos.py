"""A photo, drawn, whose subject stands out."""

import numpy as np
from PIL import Image, ImageDraw


def ball_on_a_lawn(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    """An orange ball with a dark spot on a lawn under a sky."""
    rng = np.random.default_rng(0)
    ground = np.empty((height, width, 3))
    ground[: height // 2], ground[height // 2 :] = (150, 190, 230), (70, 120, 60)
    values = (ground + rng.normal(0, 12, ground.shape)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(values)
    draw = ImageDraw.Draw(picture)
    draw.ellipse(box, fill=(230, 120, 30), outline=(120, 60, 10), width=3)
    left, top, right, _ = box
    spot = (left + (right - left) // 3, top + 10, left + (right - left) // 2, top + 30)
    draw.ellipse(spot, fill=(40, 20, 10))
    return picture
