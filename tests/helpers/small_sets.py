"""Small sets for the tests of the data layer."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from jedi_diffusion.data.record import StoredSet
from jedi_diffusion.data.shards import ShardWriter
from jedi_diffusion.sets import ImageSet


def picture(seed: int, side: int = 8, mode: str = "RGB") -> Image.Image:
    """Fields of random colours, so that no two pictures are alike."""
    values = np.random.default_rng(seed).integers(0, 255, (2, 2, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((side, side), Image.Resampling.NEAREST).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **settings)
    return data.getvalue()


def subject_set(seed: int, count: int, side: int = 8, masks: bool = False) -> ImageSet:
    return ImageSet(
        pictures=tuple(picture(100 * seed + number, side) for number in range(count)),
        captions=tuple(f"subject {seed}, picture {number}" for number in range(count)),
        subject=f"subject {seed}",
        source="tests",
        masks=tuple(picture(100 * seed + number, side, "L") for number in range(count)) if masks else None,
        info={"seed": seed},
    )


def stored_set(seed: int, count: int, masks: bool = False) -> StoredSet:
    return StoredSet.encode(f"{seed:05d}", subject_set(seed, count, masks=masks), kind="png")


SIZES = (3, 1, 4, 2, 2, 5, 3)


def write_shards(folder: Path, sizes: tuple[int, ...] = SIZES, per_shard: int = 3) -> list[Path]:
    """Shards of sets number 0, 1, 2 ... with these numbers of pictures, every second one with masks."""
    with ShardWriter(folder, sets=per_shard) as writer:
        for seed, count in enumerate(sizes):
            writer.write(stored_set(seed, count, masks=seed % 2 == 0))
    return [Path(tar) for tar in writer.finished]


def same(first: ImageSet, second: ImageSet) -> bool:
    """Whether two sets are alike to the last pixel."""

    def plain(one: ImageSet) -> list[object]:
        layers = [*one.pictures, *(one.masks or ())]
        return [
            one.captions,
            one.subject,
            one.source,
            one.info,
            *(np.asarray(each).tolist() for each in layers),
        ]

    return plain(first) == plain(second)
