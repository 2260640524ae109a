"""Making the cut-outs: a pure function of the packages, the seed and the number of views."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.errors import DataError, UsageError
from jedi_diffusion.files import make_folder, write_file
from jedi_showroom import cutouts, emoji, furniture, packages, panoramas
from jedi_showroom.cutouts import FILL, SAMPLES, SIDE, TANGENT, Cutout
from jedi_showroom.subjects import Subject, shown

_EMOJI_ELEVATION = float(np.radians(12))


class Build:
    """Cut-outs of every subject that is shown, in `folder`/cutouts. A killed build goes on where it was."""

    def __init__(self, package_folder: Path, folder: Path, seed: int, views: int) -> None:
        packages.require(package_folder)
        self.folder, self.seed, self.views = folder, seed, views
        self.unpacked = make_folder(folder / "unpacked")
        self._check_same_build()
        marker = self.unpacked / "whole"
        if not marker.exists():
            furniture.unpack(package_folder, self.unpacked / "furniture")
            panoramas.unpack(package_folder, make_folder(self.unpacked / "panoramas"))
            write_file(marker, b"")
        self.images = emoji.read_images(package_folder)
        models = furniture.read_subjects(self.unpacked / "furniture")
        pictures = emoji.read_subjects(package_folder, set(self.images))
        self.subjects = shown([*models, *pictures])

    def _check_same_build(self) -> None:
        """Hold a folder to what it was begun with: cut-outs that stay would be another seed's or size's."""
        settings = {"seed": self.seed, "side": SIDE, "samples": SAMPLES}
        path = self.folder / "build.json"
        if not path.exists():
            write_file(path, (json.dumps(settings) + "\n").encode())
        elif json.loads(path.read_text(encoding="utf-8")) != settings:
            raise UsageError(
                f"{self.folder} holds cut-outs of another seed or version ({path}): choose another folder."
            )

    def run(self, progress: Callable[[Sequence[Subject]], Sequence[Subject]]) -> int:
        """Make what is missing; return how many subjects have cut-outs. A model that cannot be rendered is
        listed in `folder`/quarantine.jsonl.
        """
        root = make_folder(self.folder / "cutouts")
        quarantine = Quarantine(self.folder / "quarantine.jsonl", len(self.subjects))
        lights = [
            panoramas.soft_light(panoramas.read(path))
            for path in sorted((self.unpacked / "panoramas").glob("*.exr"))
        ]
        for subject in progress(self.subjects):
            wanted = 1 if subject.key.startswith("emoji/") else self.views
            if cutouts.views_on_disk(root, subject) >= wanted:
                continue
            try:
                cutouts.write(root, subject, self._views(subject, lights))
            except DataError as error:
                quarantine.add(subject.key, subject.noun, str(error))
        self._write_credits()
        return len(cutouts.subjects_on_disk(root))

    def _views(self, subject: Subject, lights: list[np.ndarray]) -> list[Cutout]:
        if subject.key.startswith("emoji/"):
            return [emoji_cutout(self.images[subject.member])]
        from jedi_showroom.rendering import Mesh, random_view

        mesh = Mesh(self.unpacked / "furniture" / subject.member)
        made = []
        for view in range(self.views):
            rng = np.random.default_rng([self.seed, view, *subject.key.encode()])
            light = lights[int(rng.integers(len(lights)))]
            made.append(mesh.render(random_view(rng), light, rng))
        return made

    def _write_credits(self) -> None:
        """Everyone whose model or picture was used, with the licence, for whoever passes on what is made."""
        rows = [asdict(subject) for subject in self.subjects]
        write_file(self.folder / "credits.json", (json.dumps(rows, indent=1) + "\n").encode())


def emoji_cutout(content: bytes) -> Cutout:
    """A picture with alpha, brought to the cut-outs' size, with an oval shadow under it."""
    from jedi_showroom.rendering import blurred

    with Image.open(io.BytesIO(content), formats=("WEBP",)) as picture:
        whole = picture.convert("RGBA")
    box = whole.getchannel("A").point(lambda value: 255 * (value > 24)).getbbox()
    if box is None:
        raise DataError("The picture is fully transparent.")
    whole = whole.crop(box)
    scale = FILL * SIDE / max(whole.size)
    size = (max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))
    # Premultiplied, so that colours of transparent pixels do not bleed into the edge.
    small = whole.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    place = ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2)
    canvas = Image.new("RGBA", (SIDE, SIDE))
    canvas.paste(small, place)
    rgba = np.asarray(canvas)
    return Cutout(rgba, _standing_shadow(rgba[..., 3] / 255, blurred), 0.0, _EMOJI_ELEVATION, TANGENT)


def _standing_shadow(alpha: np.ndarray, blurred: Callable[..., np.ndarray]) -> np.ndarray:
    """The shading of the floor under an upright picture: its lowest part, flattened and blurred."""
    side = len(alpha)
    rows = np.flatnonzero(alpha.max(axis=1) > 0.3)
    floor = int(rows[-1])
    height = max(1, (floor - int(rows[0])) // 4)
    foot = alpha[floor - height : floor + 1].mean(axis=0)
    depth = np.exp(-(((np.arange(side) - floor) / (0.05 * side)) ** 2))
    shade = blurred(depth[:, None] * foot[None], 1.5) * 0.7 + blurred(depth[:, None] * foot[None], 5.0) * 0.9
    return (255 * np.clip(shade, 0, 0.9)).astype(np.uint8)
