from pathlib import Path

import numpy as np
import pytest
import torch

from jedi_diffusion.errors import ModelError
from jedi_diffusion.networks.autoencoder import PatchAutoencoder, ResidualBlock


def pictures(seed: int, count: int = 64) -> torch.Tensor:
    """Smooth random pictures in [-1, 1], (count, 3, 32, 32)."""
    noise = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(noise, size=32, mode="bicubic")
    return smooth.tanh() + 0.3


def patches(x: torch.Tensor) -> np.ndarray:
    """8x8 patches, (count * 16, 192), cut without any of torch's folding."""
    cut = x.numpy().reshape(len(x), 3, 4, 8, 4, 8).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(-1, 192).astype(np.float64)


def test_it_starts_as_the_best_linear_code() -> None:
    model = PatchAutoencoder(latent_channels=12, widths=(8, 16))
    x = pictures(0)
    model.start_from_principal_components(x)
    error = (model(x).sample - x).square().mean().item()
    flat = patches(x)
    centred = flat - flat.mean(0)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    best = values[12:].sum() / flat.size
    # The start's mean is one value a colour, not a value a pixel, so it may lose a little.
    assert best <= error <= 1.1 * best


def test_latents_start_with_unit_variance_coarse_ones_larger() -> None:
    model = PatchAutoencoder(latent_channels=12, widths=(8, 16))
    model.start_from_principal_components(pictures(0))
    latents = model.encode(pictures(0)).latent_dist.mode()
    deviation = latents.std((0, 2, 3))
    assert abs(deviation.square().mean() - 1) < 0.05
    assert (deviation[:-1] >= deviation[1:] - 1e-3).all()


@pytest.mark.parametrize("fold", [1, 2])
def test_isometric_latents_reconstruct_the_same(fold: int) -> None:
    torch.manual_seed(0)
    model = PatchAutoencoder(latent_channels=6 * fold**2, widths=(8, 16), fold=fold)
    for layer in (model.encoder[-1], model.decoder[-2]):
        torch.nn.init.normal_(layer.weight, std=0.1)
    x = pictures(1, 4)
    before = model(x).sample
    model.make_isometric(x)
    torch.testing.assert_close(model(x).sample, before, atol=1e-5, rtol=1e-4)
    latents = model.encode(x).latent_dist.mode()
    deviation = torch.pixel_shuffle(latents, fold).std(dim=(0, 2, 3))
    assert deviation.max().item() == pytest.approx(4, rel=1e-4)
    model.make_isometric(x)
    torch.testing.assert_close(model.encode(x).latent_dist.mode(), latents, atol=1e-4, rtol=1e-4)


def test_distances_of_isometric_latents_are_those_of_pictures() -> None:
    model = PatchAutoencoder(latent_channels=12, widths=(8, 16))
    model.start_from_principal_components(pictures(0))
    model.make_isometric(pictures(0))
    one, other = model.encode(pictures(1)).latent_dist.mode(), model.encode(pictures(2)).latent_dist.mode()
    latent = (one - other).flatten(1).norm(dim=1)
    pixel = (model.decode(one).sample - model.decode(other).sample).flatten(1).norm(dim=1)
    torch.testing.assert_close(pixel / latent, (pixel / latent)[0].expand(64), atol=0, rtol=1e-4)


def test_any_multiple_of_eight_works_and_a_save_loads_alike(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    model = PatchAutoencoder(latent_channels=6, widths=(8, 16))
    x = torch.rand(2, 3, 40, 24) * 2 - 1
    assert model.encode(x).latent_dist.sample().shape == (2, 6, 5, 3)
    model.save_pretrained(tmp_path)
    again = PatchAutoencoder.from_pretrained(tmp_path, use_safetensors=True)
    assert torch.equal(again(x).sample, model(x).sample)


def test_folded_latents_are_those_of_neighbours_side_by_side(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = PatchAutoencoder(latent_channels=6, widths=(8, 16))
    folded = PatchAutoencoder(latent_channels=24, widths=(8, 16), fold=2)
    folded.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 32, 48) * 2 - 1
    latents, whole = folded.encode(x).latent_dist.mode(), plain.encode(x).latent_dist.mode()
    assert latents.shape == (2, 24, 2, 3)
    for row in (0, 1):
        for column in (0, 1):
            corner = latents[:, 2 * row + column :: 4]
            assert torch.equal(corner, whole[:, :, row::2, column::2])
    assert torch.equal(folded(x).sample, plain(x).sample)
    folded.save_pretrained(tmp_path)
    again = PatchAutoencoder.from_pretrained(tmp_path, use_safetensors=True)
    assert torch.equal(again(x).sample, plain(x).sample)
    assert 2 ** (len(again.config["block_out_channels"]) - 1) == 16
    assert len(plain.config["block_out_channels"]) == 4


@pytest.mark.parametrize(("channels", "fold"), [(24, 3), (24, 0), (24, -2), (6, 2)])
def test_a_fold_that_does_not_fit_is_refused(channels: int, fold: int) -> None:
    with pytest.raises(ModelError, match=f"fold is {fold}"):
        PatchAutoencoder(latent_channels=channels, fold=fold)


def test_a_residual_block_adds_its_convolutions_of_what_is_normalized() -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(16), torch.randn(2, 16, 5, 5)
    assert torch.equal(block(x), x)  # the last convolution starts at zero
    torch.nn.init.normal_(block.second.weight)
    block.second.bias.data += 1
    groups = x.view(2, 8, 2, 5, 5)
    deviation = (groups.var(dim=(2, 3, 4), unbiased=False, keepdim=True) + 1e-5).sqrt()
    normal = ((groups - groups.mean(dim=(2, 3, 4), keepdim=True)) / deviation).view_as(x)
    inner = torch.nn.functional.conv2d(normal, block.first.weight, block.first.bias, padding=1)
    added = torch.nn.functional.conv2d(inner / (1 + (-inner).exp()), block.second.weight, padding=1) + 1
    torch.testing.assert_close(block(x), x + added, atol=1e-4, rtol=1e-4)
