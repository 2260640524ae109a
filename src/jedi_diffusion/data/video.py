"""Frames of videos with one caption each, in the layout that video2dataset writes, decoded by PyAV.

A folder of KEY.mp4 and KEY.txt at any depth, or shards of the same. Section 4: every frame has the caption of
its video.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from PIL import Image
from pydantic import PositiveFloat

from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.record import text_of
from jedi_diffusion.data.settings import StoredSource
from jedi_diffusion.data.shards import Shards, StoredSample
from jedi_diffusion.data.storage import files_below, holds_tars, read_bytes
from jedi_diffusion.errors import DataError, JeDiError, UsageError
from jedi_diffusion.files import stem_of
from jedi_diffusion.pictures import check_pixels
from jedi_diffusion.sets import ImageSet


class Frame(NamedTuple):
    """A frame (RGB) and the seconds from the beginning at which it is shown."""

    picture: Image.Image
    seconds: float


def seconds_of(video: bytes, name: str) -> float:
    """Return how long a video lasts, by its header. Raises DataError that gives `name`."""
    with _opened(video, name) as (_, stream):
        if stream.duration is None:
            raise DataError(f"The video {name} does not say how long it is.")
        return float(stream.duration * stream.time_base)


def frames_at(video: bytes, seconds: Sequence[float], gap: float, name: str) -> tuple[Frame, ...]:
    """For each of the rising times the first frame at or after it that is `gap` seconds after the one before.

    Raises DataError that gives `name`: damaged, or too short.
    """
    found: list[Frame] = []
    with _opened(video, name) as (container, stream):
        check_pixels((stream.codec_context.width, stream.codec_context.height), name)
        for time in seconds:
            earliest = max(time, found[-1].seconds + gap) if found else time
            found.append(_frame_from(container, stream, earliest, name))
    return tuple(found)


def _frame_from(container: Any, stream: Any, earliest: float, name: str) -> Frame:
    start = stream.start_time or 0
    # Lands on a key frame before; what lies between is decoded and dropped.
    container.seek(int(earliest / stream.time_base) + start, stream=stream)
    for frame in container.decode(stream):
        if frame.pts is None:
            continue
        seconds = float((frame.pts - start) * stream.time_base)
        if seconds >= earliest - 1e-6:  # times pass through floats
            return Frame(frame.to_image().convert("RGB"), seconds)
    raise DataError(f"The video {name} has no frame at {earliest:.2f} s.")


@contextmanager
def _opened(video: bytes, name: str) -> Iterator[tuple[Any, Any]]:
    try:
        import av
    except ImportError as error:
        raise UsageError("Videos need PyAV: pip install 'jedi-diffusion[data]'.") from error
    try:
        with av.open(io.BytesIO(video), format="mp4") as container:
            if not container.streams.video:
                raise DataError(f"The video {name} has no pictures.")
            yield container, container.streams.video[0]
    except JeDiError:
        raise
    # FFmpeg's errors are many classes, and damaged files reach others.
    except Exception as error:
        raise DataError(f"The video {name} cannot be read: {error}.") from error


END = 0.2
"""Seconds at the end of a video in which no frame is looked for: the last one begins before the end."""


class Clips(Protocol):
    """Videos by number, however they are stored."""

    def __len__(self) -> int: ...

    def name(self, item: int) -> str: ...

    def seconds(self, item: int) -> float:
        """Return how long the video lasts, 0 if it is damaged."""
        ...

    def read(self, item: int) -> StoredSample:
        """Return its mp4 and txt. Raises DataError."""
        ...

    def parts(self) -> Iterator[tuple[str, str | None]]:
        """Return every file or shard, as `SetCollection.parts`."""
        ...


class VideoFrames:
    """Sets of frames of one video each, at least `gap` seconds apart, in order of time.

    `place` is a folder of videos, or shards as for `Shards`.
    """

    def __init__(self, place: str, gap: float = 1.0, quarantine: Quarantine | None = None) -> None:
        if not 0 < gap < 3600:
            raise UsageError(f"The gap between frames is {gap} s, but must be more than 0.")
        self.source = place
        self.gap = gap
        shards = holds_tars(place)
        self._clips: Clips = _ShardClips(place, quarantine) if shards else _FolderClips(place)

    def __len__(self) -> int:
        return len(self._clips)

    def name(self, item: int) -> str:
        return self._clips.name(item)

    def size(self, item: int) -> int:
        return 1 + int(max(0.0, self._clips.seconds(item) - END) / self.gap)

    def parts(self) -> Iterator[tuple[str, str | None]]:
        yield from self._clips.parts()

    def read(self, item: int, size: int, generator: np.random.Generator) -> ImageSet:
        times = spread(self._clips.seconds(item) - END, size, self.gap, generator)
        clip = self._clips.read(item)
        if "mp4" not in clip.files:
            raise DataError(f"{clip.name} has no video (mp4).")
        caption = text_of(clip.files, clip.name).strip()
        frames = frames_at(clip.files["mp4"], times, self.gap, clip.name)
        return ImageSet(
            pictures=tuple(frame.picture for frame in frames),
            captions=(caption,) * size,
            source=self.source,
            info={"seconds": [round(frame.seconds, 3) for frame in frames]},
        )


def spread(length: float, count: int, gap: float, generator: np.random.Generator) -> list[float]:
    """Return `count` random times within `length` seconds, at least `gap` apart, rising, all such equally
    likely.
    """
    slack = max(0.0, length - (count - 1) * gap)
    return [
        float(time) + number * gap for number, time in enumerate(np.sort(generator.random(count)) * slack)
    ]


class _ShardClips:
    """Videos in shards; the index knows how long they are."""

    def __init__(self, place: str, quarantine: Quarantine | None) -> None:
        self._shards = Shards(place, quarantine)

    def __len__(self) -> int:
        return len(self._shards)

    def name(self, item: int) -> str:
        return self._shards.name(item)

    def seconds(self, item: int) -> float:
        return self._shards.sample(item).seconds or 0.0

    def read(self, item: int) -> StoredSample:
        return self._shards.read(item)

    def parts(self) -> Iterator[tuple[str, str | None]]:
        yield from self._shards.parts()


class _FolderClips:
    """Videos in a folder. A video's length is read when it is first drawn; many videos belong in shards."""

    def __init__(self, folder: str) -> None:
        self._files = files_below(folder, [".mp4"])
        if not self._files:
            raise DataError(f"{folder} holds no videos (mp4).")
        self._texts = {stem_of(file): file for file in files_below(folder, [".txt"])}
        self._known: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._files)

    def name(self, item: int) -> str:
        return self._files[item]

    def seconds(self, item: int) -> float:
        if item not in self._known:
            try:
                self._known[item] = seconds_of(read_bytes(self._files[item]), self._files[item])
            except DataError:  # said when it is read
                self._known[item] = 0.0
        return self._known[item]

    def read(self, item: int) -> StoredSample:
        file = self._files[item]
        text = self._texts.get(stem_of(file))
        if text is None:
            raise DataError(f"{file} has no caption (txt) beside it.")
        return StoredSample(file, file, {"mp4": read_bytes(file), "txt": read_bytes(text)})

    def parts(self) -> Iterator[tuple[str, str | None]]:
        texts = (self._texts.get(stem_of(file)) for file in self._files)
        yield from ((file, None) for file in (*self._files, *(text for text in texts if text is not None)))


class VideoSection(StoredSource):
    """Videos with captions; frames of a set are at least `gap` seconds apart."""

    drawn: ClassVar[str | None] = "their frames are drawn anew each time"
    kind: Literal["video"] = "video"
    gap: PositiveFloat = 1.0

    def open(self, resolution: int, quarantine: Quarantine | None = None) -> VideoFrames:
        return VideoFrames(self.place, self.gap, quarantine)
