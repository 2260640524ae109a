"""Scoring pictures with the bundled encoders: first from cold files, then with their features in the cache.

Decoding, hashing, encoding and all statistics are included; loading the encoders is not. Prints a table and,
as the last line, {"pictures_per_s": pictures over seconds of the first scoring, "cached_speedup": first over
second}.

    python benchmarks/scoring.py [--pictures 3000] [--size 512] [--threads 0] [--device cpu]
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jedi_diffusion.evaluation.encoders import Encoder
from jedi_diffusion.evaluation.layout import find_pictures
from jedi_diffusion.evaluation.own_subjects import open_own_subjects
from jedi_diffusion.evaluation.scoring import Results, Scorer
from jedi_toybox import world
from jedi_toybox.judges import load_judges

PROMPTS, SAMPLES, PHOTOS = 25, 4, 5  # as in DreamBench


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pictures = make(folder, options.pictures, options.size)
        encoders = load_judges(device=options.device)
        forget(folder)
        first, results = timed(folder, encoders)
        second, again = timed(folder, encoders)
        assert results.rows[-1].scores == again.rows[-1].scores
    print(
        f"{pictures} pictures of {options.size}x{options.size} on {options.device}, "
        f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    )
    for name, seconds in (("cold files", first), ("from the cache", second)):
        print(f"{name:<16}{seconds:>9.2f} s{pictures / seconds:>12.0f} pictures/s")
    print(
        json.dumps({"pictures_per_s": round(pictures / first, 1), "cached_speedup": round(first / second, 1)})
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=3000, help="rounded up to whole subjects of 100")
    parser.add_argument("--size", type=int, default=512, help="pixels of a side")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def make(folder: Path, pictures: int, size: int) -> int:
    """Write subjects with photos and toybox prompts, and a picture for every case; return their number."""
    generator = np.random.default_rng(0)
    for number in range(-(-pictures // (PROMPTS * SAMPLES))):
        home = folder / "data" / f"{number:03d}"
        home.mkdir(parents=True)
        for photo in range(PHOTOS):
            scene(generator, size).save(home / f"{photo:02d}.png")
        record = {"class": "robot", "prompts": [f"a robot {name}" for name in world.SCENES[:PROMPTS]]}
        (home / "subject.json").write_text(json.dumps(record))
    wanted = open_own_subjects(folder / "data", samples=SAMPLES)
    for case in wanted.cases:
        path = folder / "pictures" / f"{case.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(generator, size).save(path)
    return len(wanted.cases)


def scene(generator: np.random.Generator, size: int) -> Image.Image:
    """Smooth shapes with a little noise: as hard to decode as a picture."""
    cells = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC), np.int16)
    noise = generator.integers(-3, 4, (size, size, 1), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def forget(folder: Path) -> None:
    """Ask the system to drop the files from memory, where it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.rglob("*.png"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(folder: Path, encoders: Sequence[Encoder]) -> tuple[float, Results]:
    """Return seconds from the folder to the scores."""
    start = time.perf_counter()
    wanted = open_own_subjects(folder / "data", samples=SAMPLES)
    scorer = Scorer(wanted, encoders, folder / "features")
    results = scorer.score({"pictures": find_pictures(folder / "pictures", wanted)})
    return time.perf_counter() - start, results


if __name__ == "__main__":
    main()
