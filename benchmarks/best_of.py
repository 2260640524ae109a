"""What `--choose-best` gains over one picture with as many steps in all, on unseen subjects of the toybox.

    python benchmarks/best_of.py --pairs 40
    python benchmarks/best_of.py --scales DREAMBENCH

The judge of the choice sees the references alone; the score compares with other pictures of the subject,
by the same encoders and by EfficientNet-Lite2, which had no part in the choice. --scales measures what
judges call 0 and 1, on renders and on a folder of DreamBench's photos.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from jedi_diffusion.choosing import LiteEyes, ToyboxEyes, judge_of, seeds_of
from jedi_diffusion.estimates import Estimate, normalised
from jedi_diffusion.methods.joint import Joint
from jedi_diffusion.page.tables import plain
from jedi_diffusion.pictures import fit_square, open_picture, pictures_in
from jedi_toybox import load_pipeline
from jedi_toybox.encoders import load_encoders, prompt_agreement
from jedi_toybox.score import Benchmark, draw_pair, to_picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12, help="of each drawn picture")
    parser.add_argument("--scales", type=Path, help="folder of a clone of google/dreambooth's dataset")
    given = parser.parse_args()
    torch.set_num_threads(1)
    pairs = [draw_pair(number, 1) for number in range(given.pairs)]
    benchmark = Benchmark.render(pairs, load_encoders(), 128)
    if given.scales:
        show_scales(benchmark, given.scales)
    else:
        compare(benchmark, given.draws, given.steps)


def show_scales(benchmark: Benchmark, photos: Path) -> None:
    """Print the means of right and wrong pictures for both judges."""
    toy = ToyboxEyes()
    first, truth, other = (
        toy.identities([to_picture(each) for each in rows])
        for rows in (benchmark.references[:, 0], benchmark.truth, benchmark.other)
    )
    print(f"toybox identity: {(other * first).sum(1).mean():.3f} to {(truth * first).sum(1).mean():.3f}")
    specs = [pair.truth for pair in benchmark.pairs]
    agreed = [
        float(prompt_agreement(benchmark.encoders.read(rows).fields, specs).mean())
        for rows in (benchmark.wrong, benchmark.truth)
    ]
    print(f"toybox prompt:   {agreed[0]:.3f} to {agreed[1]:.3f}")
    lite = LiteEyes()
    folders = sorted(each for each in photos.iterdir() if each.is_dir() and pictures_in(each))
    subjects = [[fit_square(open_picture(path), 256) for path in pictures_in(each)[:2]] for each in folders]
    rows = np.stack([lite.identities(each) for each in subjects])
    rivals = [
        float(one[0] @ two[0])
        for (name, one), (next_name, two) in pairwise(zip(folders, rows, strict=True))
        if name.name.rstrip("0123456789") == next_name.name.rstrip("0123456789")
    ]
    right = float((rows[:, 0] * rows[:, 1]).sum(1).mean())
    print(f"lite2 identity:  {np.mean(rivals):.3f} ({len(rivals)} pairs of one class) to {right:.3f}")
    names = [each.name.rstrip("0123456789").replace("_", " ") for each in folders]
    shares = [lite.agreements([each[0]], [name])[0] for each, name in zip(subjects, names, strict=True)]
    known = [share for share in shares if share is not None]
    print(f"lite2 class:     0 to {np.mean(known):.3f} ({len(known)} subjects)")


def compare(benchmark: Benchmark, draws: int, steps: int) -> None:
    """Print the scores of one picture with few steps, of one with many, and of the best of several."""
    pipe = load_pipeline()
    drawn = [made(benchmark, Joint(pipe, {"num_inference_steps": steps}), number) for number in range(draws)]
    rows = {
        f"1 picture, {steps} steps": drawn[0],
        f"1 picture, {draws * steps} steps": made(
            benchmark, Joint(pipe, {"num_inference_steps": draws * steps}), 0
        ),
        f"best of {draws}, {steps} steps each": best(benchmark, drawn),
    }
    lite = LiteEyes()
    cells = []
    base = list(rows.values())[1]
    for name, pictures in rows.items():
        scores = benchmark.score(pictures)
        gain = benchmark.identity_gain(pictures, base)
        cells.append(
            [
                name,
                *map(str, (scores.identity, gain, scores.prompt, scores.copy, by(lite, benchmark, pictures))),
            ]
        )
    print(plain(["", "identity", "more than 2nd row", "prompt", "copies", "identity by lite2"], cells))


def made(benchmark: Benchmark, method: Joint, number: int) -> torch.Tensor:
    """Return draw `number` of each pair's picture, with the seeds of `--choose-best`."""
    return benchmark.run(method, seeds_of(0, number + 1)[number])


def best(benchmark: Benchmark, drawn: list[torch.Tensor]) -> torch.Tensor:
    """Return of each pair the picture that the toybox's judge ranks first."""
    kept = []
    for number, pair in enumerate(benchmark.pairs):
        judge = judge_of("toybox", [to_picture(each) for each in benchmark.references[number]])
        candidates = [to_picture(each[number]) for each in drawn]
        verdicts = judge.verdicts(candidates, [pair.prompt] * len(candidates))
        kept.append(drawn[max(range(len(drawn)), key=lambda place: verdicts[place].rank)][number])
    return torch.stack(kept)


def by(lite: LiteEyes, benchmark: Benchmark, pictures: torch.Tensor) -> Estimate:
    """Return identity on the scorer's scale, read by EfficientNet-Lite2."""

    def rows(stacked: torch.Tensor) -> np.ndarray:
        return lite.identities([to_picture(each) for each in stacked])

    gallery = np.stack([rows(each) for each in benchmark.gallery.unbind(1)])
    likeness = [
        np.einsum("pd,gpd->p", rows(each), gallery).astype(np.float64) / len(gallery)
        for each in (pictures, benchmark.other, benchmark.truth)
    ]
    return normalised(*likeness)


if __name__ == "__main__":
    main()
