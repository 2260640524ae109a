"""Pictures to tensors and back, and PSNR against its definition over 8-bit values."""

import numpy as np
import pytest
import torch
from PIL import Image

from jedi_diffusion.networks.autoencoder import PatchAutoencoder
from jedi_diffusion.networks.reconstruction import psnr, reconstruct, to_pictures, to_tensor


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def test_round_trip_keeps_every_byte() -> None:
    pictures = [Image.fromarray(noise(seed)) for seed in range(2)]
    tensor = to_tensor(pictures)
    assert tensor.shape == (2, 3, 16, 16)
    assert [each.tobytes() for each in to_pictures(tensor)] == [each.tobytes() for each in pictures]
    assert np.asarray(to_pictures(torch.full((1, 3, 2, 2), 1.5))[0]).min() == 255
    assert np.asarray(to_pictures(torch.full((1, 3, 2, 2), -3.0))[0]).max() == 0


def test_psnr_is_that_of_8_bit_pictures() -> None:
    one, two = noise(0), noise(1)
    error = np.mean((one.astype(float) - two.astype(float)) ** 2)
    found = psnr(to_tensor([Image.fromarray(one)]), to_tensor([Image.fromarray(two)]))
    assert found.item() == pytest.approx(10 * np.log10(255**2 / error), abs=1e-4)


def test_psnr_is_each_pictures_and_counts_values_beyond_the_range_as_its_ends() -> None:
    ends = torch.tensor([-5.0, 5.0, -1.0, 1.0]).view(1, 1, 2, 2)
    within = torch.tensor([-1.0, 1.0, -1.0, 1.0]).view(1, 1, 2, 2)
    first = torch.cat([ends, within, torch.zeros(1, 1, 2, 2)])
    second = torch.cat([within + 0.2, 3 * ends, torch.full((1, 1, 2, 2), 0.5)])
    # Half of the first's values lie 0.2 apart; the second's are equal; all of the third's lie 0.5 apart.
    expected = 10 * torch.log10(torch.tensor([4 / 0.02, 4 / 1e-10, 4 / 0.25]))
    torch.testing.assert_close(psnr(first, second), expected)
    torch.testing.assert_close(psnr(second, first), expected)


def test_reconstruct_measures_the_rounded_pictures() -> None:
    pictures = [Image.fromarray(noise(seed)) for seed in range(2)]
    torch.manual_seed(0)
    decoded, quality = reconstruct(PatchAutoencoder(latent_channels=4, widths=(8, 8)), pictures)
    assert len(decoded) == 2
    torch.testing.assert_close(quality, psnr(to_tensor(decoded), to_tensor(pictures)))
