"""What the watermark stands, where it is found though there is none, and how strong it is.

Pictures are renders of the toybox, as large as the bundled model's, and photos of subjects. Each is marked,
changed in one way, and read; and read without ever being marked. Prints a table: the share of marked pictures
that are found, and the median of their agreement; then what was found in unmarked ones; and JSON.

    python benchmarks/watermark.py [--renders 1000] [--marked 200] [--photos dreambooth/dataset] [--size 128]
"""

import argparse
import io
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from jedi_diffusion.page.tables import plain
from jedi_diffusion.pictures import ENDINGS, open_picture
from jedi_diffusion.watermark import THRESHOLD, marked, read_mark
from jedi_toybox import world

Change = Callable[[Image.Image], Image.Image]


def saved(quality: int, kind: str = "JPEG") -> Change:
    """Return what saves a picture with fewer colours than pixels, as most programs do, and opens it again."""

    def change(picture: Image.Image) -> Image.Image:
        data = io.BytesIO()
        picture.save(data, kind, quality=quality)
        return Image.open(io.BytesIO(data.getvalue())).convert("RGB")

    return change


def scaled(factor: float, how: Image.Resampling = Image.Resampling.BICUBIC) -> Change:
    """Return what brings both sides to `factor` of their length."""
    return lambda picture: picture.resize(
        (round(picture.width * factor), round(picture.height * factor)), how
    )


def cut(part: float) -> Change:
    """Return what leaves this part of both sides, off the centre, where depends on the picture's pixels."""

    def change(picture: Image.Image) -> Image.Image:
        width, height = round(picture.width * part), round(picture.height * part)
        random = np.random.default_rng(np.asarray(picture).sum())
        left, top = random.integers(picture.width - width + 1), random.integers(picture.height - height + 1)
        return picture.crop((left, top, left + width, top + height))

    return change


def lighter(picture: Image.Image) -> Image.Image:
    """Return the picture 3% lighter, as another screen profile makes it."""
    return picture.point(lambda value: min(255, round(value * 1.03)))


def screenshot(picture: Image.Image) -> Image.Image:
    """Return the picture shown 1.37 times as large, cut by 2%, a little lighter, and saved as JPEG."""
    shown = scaled(1.37, Image.Resampling.BILINEAR)(picture)
    return saved(80)(lighter(cut(0.98)(shown)))


CHANGES: dict[str, Change] = {
    "as it is": lambda picture: picture,
    **{f"JPEG {quality}": saved(quality) for quality in (95, 85, 75, 60, 50)},
    **{f"WebP {quality}": saved(quality, "WEBP") for quality in (90, 75)},
    **{f"sides x {factor:g}": scaled(factor) for factor in (0.5, 0.75, 1.5, 2)},
    "cut to 95% of the sides": cut(0.95),
    "cut to 90% of the sides": cut(0.9),
    "as a screenshot": screenshot,
    "sides x 0.5, JPEG 75": lambda picture: saved(75)(scaled(0.5)(picture)),
    "cut to 90%, JPEG 75": lambda picture: saved(75)(cut(0.9)(picture)),
}


def renders(count: int, size: int) -> Iterator[Image.Image]:
    """Yield pictures of the toybox, each of another subject."""
    for number in range(count):
        spec = world.sample_picture(world.sample_subject(number, split="held_out"), number)
        yield Image.fromarray(world.render([spec], size).pictures[0].permute(1, 2, 0).numpy())


def photos(folder: Path, count: int) -> Iterator[Image.Image]:
    """Yield pictures below a folder, `count` of them at most, spread over all subjects."""
    files = [each for each in sorted(folder.rglob("*")) if each.suffix.lower() in ENDINGS]
    return (open_picture(file) for file in files[:: max(1, len(files) // count)][:count])


def decibels(first: Image.Image, second: Image.Image) -> float:
    """Return the PSNR of two pictures."""
    squares = np.square(np.asarray(first, np.float64) - np.asarray(second)).mean()
    return float("inf") if squares == 0 else float(10 * np.log10(255**2 / squares))


def stood(pictures: list[Image.Image]) -> dict[str, dict[str, float]]:
    """Return, for each change, the share that is found and the median agreement; PSNR of those marked."""
    both = [(each, marked(each)) for each in pictures]
    carrying = [(plain_one, made) for plain_one, made in both if made is not plain_one]
    found: dict[str, dict[str, float]] = {
        "carry it": {
            "share": len(carrying) / len(both),
            "psnr": statistics.median(decibels(*pair) for pair in carrying),
        }
    }
    for name, change in CHANGES.items():
        marks = [read_mark(change(made)) for _, made in carrying]
        share = sum(mark.is_there for mark in marks) / len(marks)
        found[name] = {"share": share, "agreement": statistics.median(mark.agreement for mark in marks)}
    return found


def unmarked(pictures: Iterator[Image.Image]) -> dict[str, float]:
    """Return how many pictures there are, in how many a mark is found, and the greatest agreement."""
    agreements = [read_mark(each).agreement for each in pictures]
    false = sum(agreement >= THRESHOLD for agreement in agreements)
    return {"pictures": len(agreements), "false": false, "most": round(max(agreements), 2)}


def shown(row: dict[str, float]) -> str:
    """Return a share, and the agreement or PSNR beside it."""
    return f"{row['share']:.1%} ({row.get('agreement', row.get('psnr')):.1f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--renders", type=int, default=1000)
    parser.add_argument("--marked", type=int, default=200)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--size", type=int, default=128)
    given = parser.parse_args()
    sources = {"renders": lambda count: renders(count, given.size)}
    if given.photos is not None:
        sources["photos"] = lambda count: photos(given.photos, count)
    results = {name: stood(list(source(given.marked))) for name, source in sources.items()}
    rows = [[name, *(shown(each[name]) for each in results.values())] for name in ("carry it", *CHANGES)]
    print(plain(["found (median agreement; PSNR)", *results], rows))
    false = {name: unmarked(source(given.renders)) for name, source in sources.items()}
    for name, each in false.items():
        print(f"{name} without it: found in {each['false']} of {each['pictures']}, at most {each['most']}")
    print(json.dumps({"found": results, "false": false}))


if __name__ == "__main__":
    main()
