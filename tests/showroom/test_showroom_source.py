"""Training sets of the showroom: functions of their number, and mixed evenly with another source's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jedi_diffusion.cli import main
from jedi_diffusion.errors import DataError, RecipeError, UsageError
from jedi_diffusion.evaluation.photo_subjects import open_photo_subjects
from jedi_diffusion.networks.text import make_word_tokenizer
from jedi_diffusion.recipes import CONFIGS
from jedi_diffusion.train.config import Recipe, checked, load_recipe
from jedi_diffusion.train.runner import grown_embedding
from jedi_showroom import cutouts
from jedi_showroom.building import Build
from jedi_showroom.mixed import MixedSource
from jedi_showroom.source import ShowroomSource
from tests.helpers.plain_source import PlainSource


def test_a_set_is_the_same_alone_and_among_others(showroom: ShowroomSource) -> None:
    many, one = showroom.sets(4, 6, 3, 32, "cpu"), showroom.sets(7, 1, 3, 32, "cpu")
    assert torch.equal(many.pictures[3], one.pictures[0])
    assert torch.equal(many.masks[3], one.masks[0])
    assert many.captions[3] == one.captions[0]
    assert many.pictures.shape == (6, 3, 3, 32, 32)
    assert len({picture.numpy().tobytes() for picture in many.pictures[:, 0]}) == 6


def test_alike_sets_show_one_view_at_one_place(showroom: ShowroomSource) -> None:
    subject = showroom.subjects[0]
    alike = showroom.plan(subject, 3, np.random.default_rng(0), alike=True).shots
    loose = showroom.plan(subject, 3, np.random.default_rng(0), alike=False).shots
    assert len({(shot.view, shot.framing) for shot in alike}) == 1
    assert len({shot.framing for shot in loose}) == 3
    masks = showroom.render([showroom.plan(subject, 2, np.random.default_rng(1), alike=True)], 32).masks
    assert torch.equal(masks[0, 0], masks[0, 1])


def test_splits_share_no_noun_and_every_caption_is_spelled_in_the_words(showroom: ShowroomSource) -> None:
    held_out = ShowroomSource(showroom.root.parent, showroom.root.parent, split="held_out")
    nouns = [{subject.noun for subject in each.subjects} for each in (showroom, held_out)]
    assert not nouns[0] & nouns[1]
    assert len(nouns[0] | nouns[1]) == 20
    words = {
        word
        for captions in showroom.sets(0, 20, 2, 16, "cpu").captions
        for c in captions
        for word in c.split()
    }
    assert words <= set(showroom.words)


def test_an_empty_folder_is_refused_with_the_command_that_fills_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="jedi showroom build"):
        ShowroomSource(tmp_path, tmp_path)


def test_cut_outs_come_back_from_disk_as_they_were_written(showroom: ShowroomSource) -> None:
    subject = cutouts.subjects_on_disk(showroom.root)[0]
    assert cutouts.views_on_disk(showroom.root, subject) == 2
    first, wrapped = (cutouts.read(showroom.root, subject, view) for view in (0, 2))
    assert np.array_equal(first.rgba, wrapped.rgba)
    assert first.elevation == 0.25
    assert set(np.unique(first.rgba[..., 3])) == {0, 255}


class Named(PlainSource):
    """Sets that tell their source's name and number."""

    def __init__(self, name: str) -> None:
        self.name = name

    def sets(self, first: int, count: int, pictures: int, size: int, device: str):
        drawn = super().sets(first, count, pictures, size, device)
        names = [f"{self.name}{number}" for number in range(first, first + count)]
        return type(drawn)(drawn.pictures, drawn.masks, drawn.captions, names)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.75, 1.0])
def test_a_mixture_takes_each_sources_sets_in_order_whatever_the_chunks(share: float) -> None:
    mixed = MixedSource(Named("a"), Named("b"), share)
    whole = mixed.sets(0, 40, 2, 8, "cpu")
    pieces = [
        name for start in range(0, 40, 7) for name in mixed.sets(start, min(7, 40 - start), 2, 8, "cpu").names
    ]
    assert list(whole.names) == pieces
    for source, count in (("a", round(40 * share)), ("b", 40 - round(40 * share))):
        assert [name for name in pieces if name[0] == source] == [
            f"{source}{number}" for number in range(count)
        ]
    shades = [int(name[1:]) for name in whole.names]
    assert whole.pictures[:, 0, 0, 0, 0].tolist() == shades


def test_a_wider_vocabulary_keeps_the_known_words_rows() -> None:
    known, wider = (make_word_tokenizer(words, 8) for words in (["cat", "on"], ["cat", "dog", "on"]))
    rows = torch.randn(len(known), 4, generator=torch.Generator().manual_seed(0))
    grown = grown_embedding(rows, known, wider)
    number = {word: wider.convert_tokens_to_ids(f"{word}</w>") for word in ("cat", "dog", "on")}
    for word in ("cat", "on"):
        assert torch.equal(grown[number[word]], rows[known.convert_tokens_to_ids(f"{word}</w>")])
    mean = (grown[number["cat"]] + grown[number["on"]]) / 2
    assert torch.allclose(grown[number["dog"]], mean)
    assert torch.equal(grown[wider.bos_token_id], rows[known.bos_token_id])


def test_the_recipe_reads_and_its_source_needs_its_section(tmp_path: Path) -> None:
    path = CONFIGS / "train" / "showroom.yaml"
    recipe = load_recipe(path, "cpu")
    assert recipe.showroom is not None
    with pytest.raises(RecipeError, match="belongs to source: showroom"):
        checked(Recipe, recipe.model_dump() | {"showroom": None}, path)


def test_sets_are_written_as_folders_of_photos_with_masks(
    showroom: ShowroomSource, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = str(showroom.root.parent), tmp_path / "out"
    words = ["showroom", "sets", "--packages", root, "--folder", root, "--out", str(out)]
    assert main([*words, "--sets", "3", "--pictures", "2", "--resolution", "32"]) == 0
    assert str(out / "sheet.png") in capsys.readouterr().out
    wanted = open_photo_subjects(out / "subjects")
    assert [len(subject.photos) for subject in wanted.subjects] == [2, 2, 2]
    first = wanted.subjects[0]
    assert first.prompts[0] == f"a {first.noun} on the beach"
    assert first.photos[0].mask is not None
    with Image.open(first.photos[0].mask) as mask:
        assert mask.size == (32, 32)


def test_bad_numbers_and_missing_packages_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--packages", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["showroom", "build", *places, "--views", "0"]) == 2
    assert main(["showroom", "build", *places]) == 2
    assert "apt-get download" in capsys.readouterr().err
    assert main(["showroom", "sets", *places, "--folder", str(tmp_path), "--sets", "0"]) == 2


def test_a_build_goes_on_with_its_own_seed_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (("packages", "require"), ("furniture", "unpack"), ("panoramas", "unpack")):
        monkeypatch.setattr(f"jedi_showroom.{module}.{name}", lambda *places: None)
    monkeypatch.setattr("jedi_showroom.emoji.read_images", lambda packages: {})
    monkeypatch.setattr("jedi_showroom.emoji.read_subjects", lambda packages, available: [])
    for _ in range(2):
        assert Build(tmp_path, tmp_path / "out", seed=1, views=2).subjects == []
    with pytest.raises(UsageError, match="another seed"):
        Build(tmp_path, tmp_path / "out", seed=2, views=2)
