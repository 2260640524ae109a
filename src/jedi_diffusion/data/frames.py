"""Frames of videos, decoded with PyAV (extra `data`)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from PIL import Image

from jedi_diffusion.errors import DataError, JeDiError, UsageError
from jedi_diffusion.pictures import check_pixels


class Frame(NamedTuple):
    """A frame (RGB) and the seconds from the beginning at which it is shown."""

    picture: Image.Image
    seconds: float


def seconds_of(video: bytes, name: str) -> float:
    """How long a video lasts, by its header. Raises DataError that gives `name`."""
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
