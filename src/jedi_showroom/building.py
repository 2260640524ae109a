"""Making the cut-outs: a pure function of the packages, the seed and the number of views."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.errors import DataError
from jedi_diffusion.files import RunFolder, make_folder, write_file
from jedi_showroom import cutouts, emoji, furniture, packages, panoramas
from jedi_showroom.credits import credits_text
from jedi_showroom.cutouts import SAMPLES, SIDE, Cutout
from jedi_showroom.rendering import Mesh, random_view
from jedi_showroom.subjects import Subject, shown


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
        holds, remedy = "holds cut-outs of another build", "choose another folder"
        RunFolder(self.folder, "build.json", holds, remedy).open(settings)

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
            if cutouts.views_on_disk(root, subject) >= (1 if subject.is_flat else self.views):
                continue
            try:
                cutouts.write(root, subject, self._views(subject, lights))
            except DataError as error:
                quarantine.add(subject.key, subject.noun, str(error))
        self._write_credits()
        return len(cutouts.subjects_on_disk(root))

    def _views(self, subject: Subject, lights: list[np.ndarray]) -> list[Cutout]:
        if subject.is_flat:
            return [emoji.cutout_of(self.images[subject.member])]
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
        write_file(self.folder / "CREDITS.txt", credits_text(self.subjects).encode())
