"""How long a search in a library takes.

    python benchmarks/library.py --photos 100000

Writes a library of random vectors as wide as EfficientNet-Lite2's into a temporary folder, and looks for the
four nearest of eleven others. What was just written is in the file system's cache, as in a second search.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from jedi_diffusion.library import ROWS, VECTORS, Library

WIDTH = 1280


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=100_000)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        library = Library.create(folder, "lite2", "random", WIDTH)
        write(library, given.photos, rng)
        seconds, used = [], []
        for _ in range(11):
            vector = unit(rng, 1)[0]
            start, before = time.perf_counter(), time.process_time()
            found = library.nearest(vector, 4)
            seconds.append(time.perf_counter() - start)
            used.append(time.process_time() - before)
            assert len(found) == 4
        print(f"First search: {seconds[0]:.3f} s")
        print(f"The others:   {median(seconds[1:]):.3f} s (median), {min(seconds[1:]):.3f} s (least)")
        print(f"Processor:    {median(used[1:]):.3f} s (median)")


def write(library: Library, photos: int, rng: np.random.Generator) -> None:
    with (Path(library.folder) / VECTORS).open("wb") as file:
        for start in range(0, photos, 10_000):
            file.write(unit(rng, min(10_000, photos - start)).tobytes())
    with sqlite3.connect(Path(library.folder) / ROWS) as rows:
        many = ((n, f"/photos/{n}.jpg", 1, 1, f"subject {n // 50}", "") for n in range(photos))
        rows.executemany("INSERT INTO photos VALUES (?, ?, ?, ?, ?, ?)", many)


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return random vectors of length 1."""
    made = rng.standard_normal((count, WIDTH), dtype=np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
