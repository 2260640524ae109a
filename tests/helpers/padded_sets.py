"""Random sets whose images have sizes of their own."""

import torch

from jedi_diffusion.sets import SetBatch


def padded_batch(
    channels: int,
    widths: dict[str, tuple[int, ...]],
    extents: list[tuple[int, int]],
    set_sizes: tuple[int, ...],
    references: tuple[int, ...] = (),
    seed: int = 0,
) -> SetBatch:
    """Random images of these sizes in latents, padded to the largest; widths: shapes of conditions."""
    generator = torch.Generator().manual_seed(seed)
    height, width = (max(each[axis] for each in extents) for axis in (0, 1))
    latents = torch.randn(len(extents), channels, height, width, generator=generator)
    for latent, (rows, columns) in zip(latents, extents, strict=True):
        latent[:, rows:], latent[:, :, columns:] = 0, 0
    mask = torch.tensor([float(number not in references) for number in range(len(extents))])
    drawn = {name: torch.randn(len(extents), *shape, generator=generator) for name, shape in widths.items()}
    return SetBatch(latents, mask.view(-1, 1, 1, 1), drawn | {"extent": torch.tensor(extents)}, set_sizes)
