"""Many pictures of the toybox at once, with progress."""

from collections.abc import Sequence

import torch
from tqdm import tqdm

from jedi_toybox import world

COMPILE_FROM = 400
"""Pictures from which on compiling the renderer, a minute or two, pays."""
CHUNK = 128


def render_many(
    specs: Sequence[world.PictureSpec], size: int, device: str = "cpu", what: str = "rendering"
) -> world.Rendered:
    """Return the pictures at size x size with 2 x 2 rays a pixel, on the CPU."""
    compiled = len(specs) >= COMPILE_FROM
    parts = []
    with tqdm(total=len(specs), desc=what, unit="picture", leave=False) as bar:
        for start in range(0, len(specs), CHUNK):
            out = world.render(specs[start : start + CHUNK], size, 2, device, compiled)
            parts.append((out.pictures.cpu(), out.masks.cpu()))
            bar.update(len(parts[-1][0]))
    return world.Rendered(*(torch.cat(each) for each in zip(*parts, strict=True)))
