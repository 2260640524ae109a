"""The toybox as an evaluation set: held-out subjects in a folder, with a true render for every prompt."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.evaluation.own_subjects import open_own_subjects
from jedi_toybox import world
from jedi_toybox.evaluation_data import MAX_PROMPTS, PHOTOS, draw_subject, write_evaluation_data


@pytest.mark.parametrize("classes", ["known", "held_out"])
def test_photos_and_truths_keep_their_promises(classes: str) -> None:
    for number in range(20):
        photos, truths = draw_subject(number, 4, classes, seed=1)  # type: ignore[arg-type]
        subject = photos[0].subject
        assert subject.split == ("held_out" if classes == "known" else "held_out_classes")
        assert {spec.subject for spec in (*photos, *truths)} == {subject}
        assert (len(photos), len(truths)) == (PHOTOS, 4)
        assert len({spec.scene for spec in (*photos, *truths)}) == PHOTOS + 4
        assert all(not spec.style and not spec.attribute for spec in photos)
    assert len(draw_subject(0, MAX_PROMPTS, "known", 0)[1]) == MAX_PROMPTS


def test_a_folder_is_an_evaluation_set_and_is_finished_once(tmp_path: Path) -> None:
    folder = write_evaluation_data(tmp_path / "data", 2, 2, 24, seed=5)
    wanted = open_own_subjects(folder, references=2, inputs="all", samples=1)
    photos, truths = draw_subject(1, 2, "known", 5)
    subject = wanted.subjects[1]
    assert subject.noun == photos[0].subject.noun
    assert subject.prompts == tuple(spec.caption for spec in truths)
    assert {number for each in wanted.inputs[subject.name] for number in each} == {0, 1, 2}
    expected = world.render([truths[1]], 24, 2)
    with Image.open(subject.truths[1].path) as shown:
        found = np.asarray(shown).transpose(2, 0, 1).astype(int)
    assert np.abs(found - expected.pictures[0].numpy()).max() <= 1
    mask = subject.truths[1].mask
    assert mask is not None
    with Image.open(mask) as shown:
        assert np.array_equal(np.asarray(shown.convert("L")) == 255, expected.masks[0].numpy())
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    (folder / subject.name / "subject.json").unlink()  # as a killed run leaves it
    (folder / subject.name / "truth" / "00.png").unlink()
    write_evaluation_data(folder, 2, 2, 24, seed=5)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert before.keys() == after.keys()
    first = wanted.subjects[0].name
    assert all(before[path] == after[path] for path in before if first in path.parts)
