"""Seconds that `jedi data pack` takes for one subject of 1,000, 10,000 and 100,000 pictures with captions.

The pictures are small, so that what is measured is what grows with their number, not their decoding. Prints a
table and, as the last line, {"pictures", "seconds", "per_picture_ratio": time a picture with the most over
that with the fewest}. Linear is 1; 2 or more means that something is done again for each picture.

    python benchmarks/packing.py [--pictures 1000 10000 100000] [--largest 16] [--folder FOLDER]
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path

from PIL import Image

from jedi_diffusion.cli import main as jedi

SIDE = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--largest", type=int, default=16)
    parser.add_argument("--folder", default=None)
    options = parser.parse_args()
    counts = sorted(options.pictures)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        seconds = [pack_seconds(Path(folder), count, options.largest) for count in counts]
    print("| pictures | seconds | milliseconds a picture |\n|---|---|---|")
    for count, took in zip(counts, seconds, strict=True):
        print(f"| {count:,} | {took:.1f} | {1000 * took / count:.2f} |")
    ratio = (seconds[-1] / counts[-1]) / (seconds[0] / counts[0])
    print(json.dumps({"pictures": counts, "seconds": seconds, "per_picture_ratio": round(ratio, 2)}))


def pack_seconds(folder: Path, count: int, largest: int) -> float:
    """Return seconds to pack one subject of `count` pictures, each with its caption."""
    home = folder / f"{count}" / "dog"
    home.mkdir(parents=True)
    data = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (200, 40, 40)).save(data, "JPEG")
    for number in range(count):
        (home / f"{number}.jpg").write_bytes(data.getvalue())
        (home / f"{number}.txt").write_text(f"a dog, {number}")
    words = ["data", "pack", str(home.parent), "--out", str(folder / f"{count}-packed")]
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = jedi([*words, "--size", str(SIDE), "--largest", str(largest)])
    took = time.perf_counter() - start
    if status:
        raise SystemExit(f"jedi data pack ended with {status}")
    return took


if __name__ == "__main__":
    main()
