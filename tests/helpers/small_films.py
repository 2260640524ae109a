"""Short videos whose frames tell their number by their brightness."""

from pathlib import Path

import numpy as np

RATE = 10


def write_film(path: Path, seconds: float, rate: int = RATE) -> bytes:
    """Frame k is gray of brightness 4 k + 20; a key frame every 8. Needs PyAV."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 8
        stream.codec_context.bit_rate = 1_000_000
        for number in range(round(seconds * rate)):
            values = np.full((32, 32, 3), 4 * number + 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, "rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()
