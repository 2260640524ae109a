"""The stand-in for CLIP's image encoder: its loss against a loop, its features' length, what it learns."""

import math

import pytest
import torch
import torch.nn.functional as F

from jedi_diffusion.methods.contrastive import TEMPERATURE, ContrastiveEncoder, contrastive_loss


def test_the_loss_against_a_loop() -> None:
    torch.manual_seed(0)
    images, texts = (F.normalize(torch.randn(5, 3), dim=1) for _ in range(2))
    similar = [[float(a @ b) / TEMPERATURE for b in texts] for a in images]
    total = 0.0
    for i in range(5):
        row, column = similar[i], [similar[j][i] for j in range(5)]
        total += sum(math.log(sum(map(math.exp, each))) - similar[i][i] for each in (row, column)) / 2
    assert float(contrastive_loss(images, texts)) == pytest.approx(total / 5, rel=1e-5)


def test_it_learns_which_text_belongs_to_which_picture() -> None:
    torch.manual_seed(1)
    encoder = ContrastiveEncoder(4, 6, features=8, width=16)
    latents, texts = torch.randn(12, 4, 4, 4), torch.randn(12, 6)
    optimizer = torch.optim.AdamW(encoder.parameters(), 1e-2)
    first = float(encoder.loss(latents, texts).detach())
    for _ in range(30):
        loss = encoder.loss(latents, texts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2 * first
    with torch.no_grad():
        features = encoder(latents)
    assert features.shape == (12, 8)
    assert torch.allclose(features.norm(dim=1), torch.ones(12), atol=1e-5)
