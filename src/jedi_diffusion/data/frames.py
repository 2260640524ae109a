"""Frames of videos, decoded with PyAV (extra `data`)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from PIL import Image

from jedi_diffusion.errors import DataError, JeDiError
from jedi_diffusion.pictures import check_pixels


def seconds_of(video: bytes, name: str) -> float:
    """How long a video lasts, by its header. Raises DataError that gives `name`."""
    with _opened(video, name) as (container, stream):
        if stream.duration:
            return float(stream.duration * stream.time_base)
        if container.duration:
            return float(container.duration) / 1e6
        raise DataError(f"The video {name} does not say how long it is.")


def frames_at(video: bytes, seconds: Sequence[float], name: str) -> tuple[Image.Image, ...]:
    """For each time, in rising order, the first frame at or after it (the last one, near the end), as RGB.

    Raises DataError that gives `name`.
    """
    with _opened(video, name) as (container, stream):
        check_pixels((stream.codec_context.width, stream.codec_context.height), name)
        return tuple(_frame_at(container, stream, time, name) for time in seconds)


def _frame_at(container: Any, stream: Any, seconds: float, name: str) -> Image.Image:
    start = stream.start_time or 0
    # Lands on the key frame before; what lies between is decoded and dropped.
    container.seek(int(seconds / stream.time_base) + start, stream=stream)
    last = None
    for last in container.decode(stream):
        if last.pts is not None and (last.pts - start) * stream.time_base >= seconds - 1e-3:
            break
    if last is None:
        raise DataError(f"The video {name} has no frame at {seconds:.2f} s.")
    return last.to_image().convert("RGB")  # type: ignore[no-any-return]


@contextmanager
def _opened(video: bytes, name: str) -> Iterator[tuple[Any, Any]]:
    try:
        import av
    except ImportError as error:
        raise DataError("Videos need PyAV: pip install 'jedi-diffusion[data]'.") from error
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
