"""What the scorer's encoders must overlook (small changes of a picture) and must not (impostors).

Colours alone tell most toybox subjects apart. An encoder left to itself therefore looks at nothing else, and
takes a formless blob of the right colours for the subject. Impostors have its colours and not its shape.
Letters: I pictures; H pixels of a side.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOB = (3.0, 6.0)  # pixels of blur in which shapes are lost; mild blur is below 1.2
MILD_WARP, STRONG_WARP = 0.02, (0.12, 0.3)  # in half widths of a picture


def vary(pictures: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shifted, scaled, mirrored, bent and recoloured a little, noisy, and half of them blurred: generated
    pictures are less sharp than rendered ones, and that must not count.

    pictures (I, 3, H, H) in 0..1, masks (I, H, H).
    """
    count, device = len(pictures), pictures.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(device)

    scale = 0.85 + 0.2 * uniform(count)
    place = torch.zeros(count, 2, 3, device=device)
    place[:, 0, 0] = scale * torch.where(uniform(count) < 0.5, -1.0, 1.0)
    place[:, 1, 1] = scale
    place[:, :, 2] = 0.2 * (uniform(count, 2) - 0.5)
    both = torch.cat([pictures, masks[:, None]], 1)
    grid = F.affine_grid(place, list(both.shape), align_corners=False)
    moved = _sampled(both, grid + _bending(both, MILD_WARP, generator))
    pictures, masks = moved[:, :3].clone(), moved[:, 3]

    coarse, soft = torch.randperm(count, generator=generator).to(device)[: count // 2].chunk(2)
    side = int(pictures.shape[-1] * _between(0.45, 0.8, generator))
    small = F.interpolate(pictures[coarse], (side, side), mode="bilinear", antialias=True)
    pictures[coarse] = F.interpolate(small, pictures.shape[-2:], mode="bicubic")
    pictures[soft] = blur(pictures[soft], _between(0.4, 1.2, generator))
    gain = 1 + 0.1 * (uniform(count, 3, 1, 1) - 0.5)
    noise = torch.randn(pictures.shape, generator=generator).to(device) * 0.03 * uniform(count, 1, 1, 1)
    return (pictures * gain + noise).clamp(0, 1), masks


def impostors(pictures: Tensor, masks: Tensor, generator: torch.Generator) -> Tensor:
    """For every picture one with its subject's colours that does not show it, (I, 3, H, H).

    A third each: blurred to a blob; bent out of shape; the next picture's subject in the colours of this one.
    """
    made = pictures.clone()
    kinds = torch.randperm(len(pictures), generator=generator).to(pictures.device).tensor_split(3)
    blobs, bent, others = kinds
    made[blobs] = blur(pictures[blobs], _between(*BLOB, generator))
    unmoved = torch.eye(2, 3, device=made.device).expand(len(bent), 2, 3)
    grid = F.affine_grid(unmoved, list(made[bent].shape), align_corners=False)
    made[bent] = _sampled(
        pictures[bent], grid + _bending(made[bent], _between(*STRONG_WARP, generator), generator)
    )
    following = (others + 1) % len(pictures)
    made[others] = recolored(pictures[following], masks[following], pictures[others], masks[others])
    return made


def recolored(pictures: Tensor, masks: Tensor, models: Tensor, model_masks: Tensor) -> Tensor:
    """Return the pictures with mean and deviation of each colour within their masks set to those of the
    models.
    """
    mean, deviation = _color_statistics(pictures, masks)
    wanted_mean, wanted_deviation = _color_statistics(models, model_masks)
    changed = ((pictures - mean) / deviation * wanted_deviation + wanted_mean).clamp(0, 1)
    return torch.where(masks[:, None] > 0.5, changed, pictures)


def blur(pictures: Tensor, deviation: float) -> Tensor:
    """Gaussian blur by `deviation` pixels."""
    reach = max(1, round(3 * deviation))
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=pictures.device) / deviation) ** 2)
    line = (line / line.sum()).expand(pictures.shape[1], 1, 1, -1)
    padded = F.pad(pictures, (reach,) * 4, mode="reflect")
    across = F.conv2d(padded, line, groups=pictures.shape[1])
    return F.conv2d(across, line.transpose(2, 3), groups=pictures.shape[1])


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _color_statistics(pictures: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    inside = (masks[:, None] > 0.5).float()
    count = inside.sum((2, 3), keepdim=True).clamp_min(1)
    mean = (pictures * inside).sum((2, 3), keepdim=True) / count
    variance = ((pictures - mean).square() * inside).sum((2, 3), keepdim=True) / count
    return mean, variance.sqrt().clamp_min(0.02)


def _bending(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Return a smooth random displacement (I, H, H, 2) of about `strength` half widths."""
    coarse = torch.randn(len(pictures), 2, 5, 5, generator=generator).to(pictures.device) * strength
    smooth = F.interpolate(coarse, pictures.shape[-2:], mode="bicubic", align_corners=False)
    return smooth.permute(0, 2, 3, 1)


def _sampled(pictures: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
