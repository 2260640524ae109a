"""Enlarging by the real network where it is installed, and what is said where it is not."""

import importlib.util
import sys

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.vision import enlarge
from jedi_diffusion.vision.enlarge import RealEsrgan, enlarger_of, unchanged


def drawing(seed: int = 0) -> Image.Image:
    """Smooth colours and a sharp square."""
    cells = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(cells).resize((40, 24), Image.Resampling.BICUBIC)
    picture.paste((250, 20, 60), (10, 6, 22, 18))
    return picture


@pytest.fixture(scope="module")
def real() -> RealEsrgan:
    pytest.importorskip("ncnn", reason="needs the extra enlarge")
    if importlib.util.find_spec(enlarge.PACKAGE) is None:  # importing it would look for Vulkan
        pytest.skip("needs the extra enlarge")
    return RealEsrgan()


def test_an_enlarged_picture_shows_the_same_more_sharply(real: RealEsrgan) -> None:
    picture = Image.new("RGB", (32, 24), (230, 200, 120))
    picture.paste((40, 60, 160), (8, 6, 24, 18))
    large = real(picture)
    assert (large.size, large.mode) == ((128, 96), "RGB")
    small = np.asarray(large.resize(picture.size, Image.Resampling.BOX), np.float64)
    assert np.abs(small - np.asarray(picture)).mean() < 8
    assert np.abs(small[:, :, ::-1] - np.asarray(picture)).mean() > 50  # channels are in order

    def steepest(shown: Image.Image) -> float:
        return float(np.abs(np.diff(np.asarray(shown, np.float64)[48], axis=0)).max())

    assert steepest(large) > 1.5 * steepest(picture.resize(large.size, Image.Resampling.BICUBIC))


def test_enlarging_is_repeatable_and_knows_no_picture_before(real: RealEsrgan) -> None:
    first = [real(drawing(seed)).tobytes() for seed in range(3)]
    assert [real(drawing(seed)).tobytes() for seed in (2, 1, 0)] == first[::-1]
    assert len(set(first)) == 3
    assert real(Image.new("RGB", (17, 9), "red")).size == (68, 36)


def test_nothing_is_enlarged_or_loaded_without_a_factor() -> None:
    assert enlarger_of(None) is unchanged
    assert unchanged(drawing()) == drawing()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    path = tmp_path / "site" / "small_enlarger"
    (path).mkdir(parents=True)
    monkeypatch.syspath_prepend(path.parent)
    missing = enlarge.NETWORK._replace(package="no_such_enlarger")
    monkeypatch.setattr(enlarge, "NETWORK", missing)
    with pytest.raises(UsageError, match=r"pip install 'jedi-diffusion\[enlarge\]'"):
        enlarger_of(4)
    (path / "__init__.py").write_text("")
    (path / "w.bin").write_bytes(b"other")
    monkeypatch.setattr(enlarge, "NETWORK", missing._replace(package="small_enlarger", path="w.bin"))
    with pytest.raises(ModelError, match="so it was not opened"):
        enlarger_of(4)


def test_missing_ncnn_is_named(real: RealEsrgan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(UsageError, match=r"needs the package ncnn: pip install 'jedi-diffusion\[enlarge\]'"):
        RealEsrgan()
