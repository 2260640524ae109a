"""EfficientNet-Lite in small: an installed package with the weights of a narrow network."""

import hashlib
from pathlib import Path

import pytest
import torch

from jedi_diffusion.vision import lite
from jedi_diffusion.vision.features import Preprocessing
from jedi_diffusion.vision.lite import Variant
from jedi_diffusion.vision.packaged import PackagedFile


def their_network(name: str = "efficientnet-lite0", **overrides: float) -> torch.nn.Module:
    """The package's network with random weights and statistics, under which pictures stay different."""
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="the reference needs its package")
    torch.manual_seed(0)
    network = package.EfficientNet.from_name(name, **overrides).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    return network


def small_lite0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a small network's weights as a pickle, in the place of lite0's."""
    home = tmp_path / "site" / "small_lite_model"
    home.mkdir(parents=True)
    (home / "__init__.py").write_text("raise RuntimeError('it must not be imported')")
    torch.save(their_network(width_coefficient=0.1, depth_coefficient=0.1).state_dict(), home / "w.pth")
    digest = hashlib.sha256((home / "w.pth").read_bytes()).hexdigest()
    monkeypatch.syspath_prepend(home.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    preprocessing = Preprocessing(37, 32, lite.MEAN, lite.STD)
    source = PackagedFile(home.name, "w.pth", digest, "imagenet")
    monkeypatch.setitem(lite.VARIANTS, "lite0", Variant(0.1, 0.1, source, preprocessing))
    return home
