"""The watermark: what it says, what it stands, and what chance says of pictures without it."""

import io

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion import watermark
from jedi_diffusion.watermark import GRID, LEAST, SMALLEST, THRESHOLD, marked, read_mark
from jedi_toybox import world


def rendered(count: int, size: int = 128) -> list[Image.Image]:
    specs = [
        world.sample_picture(world.sample_subject(number, split="held_out"), number)
        for number in range(count)
    ]
    drawn = world.render(specs, size).pictures.permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(each) for each in drawn]


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return rendered(4)


def saved(picture: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return Image.open(io.BytesIO(data.getvalue()))


def test_a_mark_is_found_after_what_happens_to_pictures(pictures: list[Image.Image]) -> None:
    for picture in pictures:
        made = marked(picture)
        width, height = made.size
        assert read_mark(made).agreement > LEAST
        assert not read_mark(picture).is_there
        for changed in (
            saved(made, 75),
            saved(made, 50),
            made.resize((64, 64), Image.Resampling.LANCZOS),
            made.resize((300, 200), Image.Resampling.BILINEAR),
            made.crop((9, 4, width - 3, height - 8)),
        ):
            assert read_mark(changed).is_there, changed.size


def test_a_cut_picture_says_how_much_is_left(pictures: list[Image.Image]) -> None:
    large = marked(pictures[0].resize((400, 600), Image.Resampling.BICUBIC))
    mark = read_mark(large.crop((20, 0, 380, 600)))
    assert mark.is_there
    assert mark.part == pytest.approx((0.9, 1.0), abs=0.02)


def test_a_mark_is_hard_to_see(pictures: list[Image.Image]) -> None:
    for picture in pictures:
        change = np.asarray(marked(picture), float) - np.asarray(picture)
        assert np.sqrt(np.square(change).mean()) < 5  # 34 dB
        assert np.abs(change).max() < 32


def test_the_same_picture_gets_the_same_mark_once(pictures: list[Image.Image]) -> None:
    made = marked(pictures[0])
    assert made.tobytes() == marked(pictures[0]).tobytes()
    assert read_mark(marked(made)).agreement >= read_mark(made).agreement - 0.5


def test_small_and_plain_pictures_stay_as_they_are() -> None:
    for picture in (
        Image.new("RGB", (256, 256), "white"),
        rendered(1, SMALLEST - 8)[0],
    ):
        assert marked(picture) is picture
        assert not read_mark(picture).is_there


def test_agreement_is_the_weighted_sum_of_cosines() -> None:
    """In the plain form of the definition, one place at a time."""
    values = np.random.default_rng(0).normal(0, 20, (GRID, GRID))
    spectrum = watermark._spectrum(values)
    pattern = watermark._pattern()
    surface = watermark._agreement(spectrum)
    downs, acrosses = np.fft.fftfreq(GRID, 1 / GRID), np.fft.rfftfreq(GRID, 1 / GRID)
    for down, across in ((0, 0), (3, 0), (7, 11)):
        total, squares = 0.0, 0.0
        for row, column in np.argwhere(pattern != 0):
            length = abs(spectrum[row, column])
            weight = length / np.hypot(length, watermark.NOISE * GRID)
            turn = 2 * np.pi * (downs[row] * down + acrosses[column] * across) / GRID
            phase = np.angle(pattern[row, column]) + turn - np.angle(spectrum[row, column])
            total += weight * np.cos(phase)
            squares += weight**2
        assert surface[down, across] == pytest.approx(total / np.sqrt(squares / 2), abs=1e-6)


def test_by_chance_agreement_is_a_standard_normal_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over random patterns, for one picture: whatever it shows."""
    spectrum = watermark._spectrum(watermark._on_grid(watermark._luma(rendered(1)[0])))
    inside = watermark._pattern() != 0
    random = np.random.default_rng(0)
    found = []
    for _ in range(200):
        drawn = np.where(inside, np.exp(2j * np.pi * random.random(inside.shape)), 0)
        monkeypatch.setattr(watermark, "_pattern", lambda drawn=drawn: drawn)
        found.append(watermark._agreement(spectrum)[::16, ::16])
    assert np.mean(found) == pytest.approx(0, abs=0.05)
    assert np.std(found) == pytest.approx(1, abs=0.05)


def test_the_threshold_is_as_rare_as_it_says() -> None:
    """By the union bound over all scales and places that are tried."""
    from statistics import NormalDist

    sides = [round(GRID * part) for part in np.linspace(1, watermark.LEAST_SCALE, watermark.SCALES)]
    tried = sum(GRID - side + 1 for side in sides) ** 2
    assert 1 / (tried * (1 - NormalDist().cdf(THRESHOLD))) > 70_000


def test_the_pattern_is_fixed() -> None:
    """Pictures that are out carry it: another one would not find them."""
    pattern = watermark._pattern()
    assert int((pattern != 0).sum()) == 1154
    some = [np.angle(pattern[place]) for place in ((10, 10), (120, 5), (20, 3))]
    assert some == pytest.approx([-0.9814, 2.5369, 0.3885], abs=1e-4)
