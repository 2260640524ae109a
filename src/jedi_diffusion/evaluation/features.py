"""Features of picture files: read once, by all encoders, with what is known taken from the cache.

Letters: I items; D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from jedi_diffusion.errors import UsageError
from jedi_diffusion.evaluation.cache import FeatureCache, key_of
from jedi_diffusion.evaluation.digests import FileDigests, read_bytes
from jedi_diffusion.evaluation.encoders import Encoder, Rows, TextEncoder, checked_rows
from jedi_diffusion.evaluation.masking import cut_out, read_mask
from jedi_diffusion.pictures import FULL_SCALE, open_picture
from jedi_diffusion.vision.detection import SubjectFinder

CHUNK = 32  # pictures read and encoded at once, while the next ones are decoded
CUT_OUT = b"cut out on white"


class Item(NamedTuple):
    """A picture file, or the subject cut out of it: with a mask file, or by the name it is found by."""

    path: Path
    mask: Path | None = None
    noun: str | None = None


class _Loaded(NamedTuple):
    """`picture` is None where all features are known already."""

    item: Item
    key: bytes
    picture: Image.Image | None
    mask: bytes | None


@dataclass
class FeatureReader:
    """Encoders and their caches. finder: finds subjects where an item gives a noun."""

    encoders: Sequence[Encoder]
    folder: Path
    finder: SubjectFinder | None = None
    workers: int = 2
    caches: dict[str, FeatureCache] = field(init=False)
    digests: FileDigests = field(init=False)

    def __post_init__(self) -> None:
        if len({each.name for each in self.encoders}) != len(self.encoders):
            raise UsageError("Two encoders have the same name.")
        self.caches = {each.name: FeatureCache(self.folder, each) for each in self.encoders}
        self.digests = FileDigests(Path(self.folder) / "files.json")

    def read(
        self, items: Sequence[Item], encoders: Sequence[Encoder], what: str = "pictures"
    ) -> dict[str, Rows]:
        """Return (I, D) by the encoder's name; rows of NaN for cut-outs on which no subject was found.

        encoders: some of those of this reader. Raises PictureError that names the file.
        """
        keys: dict[Item, bytes] = {}
        wanted = list(dict.fromkeys(items))
        with tqdm(total=len(wanted), desc=what, unit="picture", leave=False) as bar:
            for loaded in self._load(wanted, encoders):
                self._encode([each for each in loaded if each.picture is not None], encoders)
                keys |= {each.item: each.key for each in loaded}
                bar.update(len(loaded))
        self.digests.save()
        rows = {each.name: [self.caches[each.name].rows[keys[item]] for item in items] for each in encoders}
        return {name: _stacked(each) for name, each in rows.items()}

    def texts(self, texts: Sequence[str]) -> dict[str, dict[str, Rows]]:
        """Return the features (D,) of each text by the encoder's name, for encoders of texts."""
        found = {}
        wanted = list(dict.fromkeys(texts))
        for encoder in self.encoders:
            if not isinstance(encoder, TextEncoder):
                continue
            cache = self.caches[encoder.name]
            keys = {text: key_of(b"text", text.encode()) for text in wanted}
            new = [text for text in wanted if keys[text] not in cache.rows]
            if new:
                cache.add([keys[text] for text in new], checked_rows(encoder, encoder.texts(new), len(new)))
            found[encoder.name] = {text: cache.rows[key] for text, key in keys.items()}
        return found

    def _load(self, items: Sequence[Item], encoders: Sequence[Encoder]) -> Iterator[list[_Loaded]]:
        """Yield the items in chunks; a chunk is read and decoded by threads while the one before is
        encoded.
        """

        def open_some(some: Sequence[Item]) -> list[_Loaded]:
            return [self._open(item, encoders) for item in some]

        part = -(-CHUNK // self.workers)  # a task for each picture costs more than reading what is known
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: list[Future[list[_Loaded]]] = []
            for start in range(0, len(items), CHUNK):
                chunk = items[start : start + CHUNK]
                parts = [chunk[first : first + part] for first in range(0, len(chunk), part)]
                coming = [pool.submit(open_some, some) for some in parts]
                if waiting:
                    yield [loaded for each in waiting for loaded in each.result()]
                waiting = coming
            if waiting:
                yield [loaded for each in waiting for loaded in each.result()]

    def _open(self, item: Item, encoders: Sequence[Encoder]) -> _Loaded:
        digest, data = self.digests.of(item.path)
        parts = [digest]
        mask = None
        if item.mask is not None:
            mask_digest, mask = self.digests.of(item.mask)
            parts += [CUT_OUT, mask_digest]
        if item.noun is not None:
            assert self.finder is not None, "an item to be found needs a finder"
            parts += [CUT_OUT, self.finder.fingerprint.encode(), item.noun.encode()]
        key = key_of(*parts)
        if all(key in self.caches[each.name].rows for each in encoders):
            return _Loaded(item, key, None, None)
        data = data or read_bytes(item.path)
        if item.mask is not None:
            mask = mask or read_bytes(item.mask)
        # No reduced scale: that would change scores.
        return _Loaded(item, key, open_picture(data, str(item.path), decode_size=FULL_SCALE), mask)

    def _encode(self, loaded: Sequence[_Loaded], encoders: Sequence[Encoder]) -> None:
        shown = self._cut(loaded)
        for encoder in encoders:
            cache = self.caches[encoder.name]
            new = {key: picture for key, picture in shown.items() if key not in cache.rows}
            seen = {key: picture for key, picture in new.items() if picture is not None}
            if seen:
                rows = encoder.images(list(seen.values()))
                cache.add(list(seen), checked_rows(encoder, rows, len(seen)))
            empty = [key for key in new if key not in seen]
            cache.add(empty, np.full((len(empty), 1), np.nan, np.float32))

    def _cut(self, loaded: Sequence[_Loaded]) -> Mapping[bytes, Image.Image | None]:
        """Return what is encoded, by key: pictures as they are or their cut-outs; None where there is no
        subject.
        """
        shown: dict[bytes, Image.Image | None] = {}
        to_find = []
        for each in loaded:
            assert each.picture is not None
            if each.item.noun is not None:
                to_find.append(each)
            elif each.mask is not None:
                mask = read_mask(each.mask, str(each.item.mask), each.picture.size)
                shown[each.key] = cut_out(each.picture, mask)
            else:
                shown[each.key] = each.picture
        if to_find and self.finder is not None:
            pictures = [each.picture for each in to_find if each.picture is not None]
            masks = self.finder.find(pictures, [each.item.noun or "" for each in to_find])
            for each, picture, mask in zip(to_find, pictures, masks, strict=True):
                shown[each.key] = cut_out(picture, mask)
        return shown


def _stacked(rows: Sequence[Rows]) -> Rows:
    """Return (I, D); where nothing was encoded, the cache keeps a single NaN, which becomes a row of them."""
    width = max((len(row) for row in rows), default=0)
    if not width:
        return np.empty((0, 0), np.float32)
    return np.stack([row if len(row) == width else np.full(width, np.nan, np.float32) for row in rows])
