"""Whole results: against plain loops over pictures, the known answers, and the files that are written."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.errors import PictureError, UsageError
from jedi_diffusion.evaluation.cases import EvaluationSet
from jedi_diffusion.evaluation.dreambench import open_dreambench
from jedi_diffusion.evaluation.layout import find_pictures
from jedi_diffusion.evaluation.outputs import as_csv, record_of, score_tables, shown, write_results
from jedi_diffusion.evaluation.own_subjects import open_own_subjects
from jedi_diffusion.evaluation.report import ranked
from jedi_diffusion.evaluation.scale import scaled_columns
from jedi_diffusion.evaluation.scoring import COPY_INPUT, ORACLE, OTHER, Results, RowScores, Scorer, rival
from tests.helpers.scoring_encoders import ColorEncoder
from tests.helpers.small_benchmarks import make_clone, make_pictures, picture

ENCODER = ColorEncoder()


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    return open_dreambench(make_clone(tmp_path_factory.mktemp("data")), inputs="all", samples=2)


@pytest.fixture(scope="module")
def pictures(wanted: EvaluationSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("made"), wanted)


@pytest.fixture(scope="module")
def results(wanted: EvaluationSet, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    scorer = Scorer(wanted, [ENCODER], tmp_path_factory.mktemp("cache"))
    return scorer.score({"ours": find_pictures(pictures, wanted)})


def row(results: Results, name: str) -> RowScores:
    return next(each for each in results.rows if each.name == name)


def feature(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return ColorEncoder().images([opened.convert("RGB")])[0].astype(float)


@pytest.mark.parametrize("comparison", ["all", "others", "inputs"])
@pytest.mark.parametrize("averaging", ["pairs", "subjects"])
def test_image_scores_agree_with_loops(wanted, pictures, tmp_path, comparison, averaging) -> None:
    found = Scorer(wanted, [ENCODER], tmp_path, averaging=averaging).score(
        {"ours": find_pictures(pictures, wanted)}
    )
    pairs: dict[str, list[list[float]]] = {}
    for case in wanted.cases:
        made = feature(pictures / f"{case.name}.png")
        photos = [
            feature(photo.path)
            for number, photo in enumerate(case.subject.photos)
            if comparison == "all" or (number in case.inputs) == (comparison == "inputs")
        ]
        pairs.setdefault(case.subject.name, []).append([float(made @ each) for each in photos])
    if averaging == "pairs":
        expected = np.mean([value for subject in pairs.values() for each in subject for value in each])
    else:
        expected = np.mean([np.mean([np.mean(each) for each in subject]) for subject in pairs.values()])
    score = row(found, "ours").scores[f"COLOR-I, {comparison}"]
    assert score.mean == pytest.approx(expected, abs=1e-6)
    assert score.low <= score.mean <= score.high


def test_text_scores_copies_and_diversity_agree_with_loops(wanted, pictures, results) -> None:
    ours = row(results, "ours").scores
    texts = ColorEncoder().texts([case.text for case in wanted.cases])
    made = [feature(pictures / f"{case.name}.png") for case in wanted.cases]
    expected = np.mean([float(a @ b) for a, b in zip(made, texts, strict=True)])
    assert ours["COLOR-T"].mean == pytest.approx(expected, abs=1e-6)
    distances = [1 - float(made[place] @ made[place + 1]) for place in range(0, len(made), 2)]
    assert ours["diversity, COLOR-I"].mean == pytest.approx(np.mean(distances), abs=1e-6)
    assert ours["copies"].mean == 0


def test_known_answers_stand_beside(wanted, results) -> None:
    oracle, copied = row(results, ORACLE), row(results, COPY_INPUT)
    assert [each.name for each in results.rows] == [ORACLE, OTHER, COPY_INPUT, "ours"]
    assert copied.scores["COLOR-I, inputs"].mean == pytest.approx(1, abs=1e-6)
    assert copied.scores["copies"].mean == 1
    assert oracle.scores["copies"].mean == 0
    assert oracle.scores["COLOR-I, all"].mean < copied.scores["COLOR-I, all"].mean
    assert oracle.scores["diversity, COLOR-I"] is None
    subject = wanted.subjects[0]  # three photos: an oracle's picture has one other photo and one input
    features = [feature(photo.path) for photo in subject.photos]
    cosines = [float(features[a] @ features[b]) for a in range(3) for b in range(3) if a != b]
    means = oracle.subjects[subject.name]
    assert means["COLOR-I, all"] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert means["COLOR-I, inputs"] == pytest.approx(np.mean(cosines), abs=1e-6)


def test_another_subject_is_of_the_class_then_of_the_kind(wanted) -> None:
    dog, can, bear = wanted.subjects
    second = replace(can, name="can2")
    kitten = replace(dog, name="cat", noun="cat")
    assert rival(can, (dog, can, bear, second)) is second
    assert rival(can, (dog, can, bear)) is bear
    assert rival(dog, (dog, can, bear, kitten)) is kitten
    assert rival(dog, (dog, can)) is can
    assert rival(dog, (dog,)) is None


def test_scaled_scores_lie_between_another_subject_and_the_same_one(tmp_path: Path) -> None:
    """Photos of a subject have nearly its colour; a picture halfway to another's colour is in the middle."""
    colours = {"lime": (40, 255, 0), "fire": (255, 40, 0), "navy": (0, 40, 255)}
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "prompts.txt").write_text("a {}\n")
    for name, colour in colours.items():
        (tmp_path / "own" / name).mkdir()
        for number in range(3):
            shade = tuple(max(0, value - 5 * number) for value in colour)
            Image.new("RGB", (8, 8), shade).save(tmp_path / "own" / name / f"{number}.png")
    wanted = open_own_subjects(tmp_path / "own", samples=1)
    methods = {}
    for method in ("same", "other", "middle"):
        methods[method] = {}
        for case in wanted.cases:
            mine, theirs = colours[case.subject.name], colours[rival(case.subject, wanted.subjects).name]
            part = {"same": 0, "other": 1, "middle": 0.5}[method]
            colour = tuple(round(a + part * (b - a)) for a, b in zip(mine, theirs, strict=True))
            path = tmp_path / method / f"{case.name}.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8), colour).save(path)
            methods[method][case] = path
    results = Scorer(wanted, [ENCODER], tmp_path / "cache").score(methods)
    scaled = {name: scores["COLOR-I"] for name, scores in scaled_columns(results).items()}
    assert scaled[ORACLE].mean == 1
    assert scaled[OTHER].mean == 0
    assert scaled["same"].mean == pytest.approx(1, abs=0.02)
    assert scaled["other"].mean == pytest.approx(0, abs=0.02)
    assert 0.1 < scaled["middle"].low <= scaled["middle"].mean <= scaled["middle"].high < 0.95
    floor, ceiling, ours = (row(results, name).subjects for name in (OTHER, ORACLE, "middle"))
    title = "COLOR-I, others"
    means = [np.mean([each[name][title] for name in colours]) for each in (ours, floor, ceiling)]
    assert scaled["middle"].mean == pytest.approx((means[0] - means[1]) / (means[2] - means[1]))
    record = record_of(results, {})["methods"][-1]
    assert record["scaled"]["COLOR-I"] == scaled["middle"].record()
    assert score_tables(results)[0].rows[-1][1] == shown(scaled["middle"])


def test_a_scale_whose_ends_may_have_changed_places_is_not_printed(results) -> None:
    """The small clone's pictures are noise: another subject is as near as the same one."""
    assert {each["COLOR-I"] for each in scaled_columns(results).values()} == {None}


def test_groups_of_subjects_add_up(results) -> None:
    ours = row(results, "ours")
    assert ours.kinds.keys() == {"live", "object"}
    assert ours.classes.keys() == {"dog", "can", "stuffed animal"}
    assert ours.kinds["live"]["COLOR-T"].mean == pytest.approx(ours.subjects["dog6"]["COLOR-T"])
    pictures = {"dog": 12, "can": 16, "stuffed animal": 20}
    whole = sum(ours.classes[noun]["COLOR-T"] * count for noun, count in pictures.items()) / 48
    assert ours.scores["COLOR-T"].mean == pytest.approx(whole)


def test_a_single_photo_leaves_nothing_to_compare_with(tmp_path: Path) -> None:
    (tmp_path / "own" / "mug").mkdir(parents=True)
    picture(1).save(tmp_path / "own" / "mug" / "a.png")
    (tmp_path / "own" / "prompts.txt").write_text("a red {}\n")
    wanted = open_own_subjects(tmp_path / "own", samples=1)
    made = find_pictures(make_pictures(tmp_path / "made", wanted), wanted)
    found = Scorer(wanted, [ENCODER], tmp_path / "cache").score({"ours": made})
    assert [each.name for each in found.rows] == [COPY_INPUT, "ours"]
    ours = found.rows[-1].scores
    assert ours["COLOR-I, others"] is None
    assert ours["COLOR-I, all"] == ours["COLOR-I, inputs"]
    assert ours["diversity, COLOR-I"] is None
    written = write_results(tmp_path / "out", found, {})
    assert "–" in (tmp_path / "out" / "scores.md").read_text()
    assert len(written) == 5


def test_true_pictures_of_the_prompts_are_the_oracle(tmp_path: Path) -> None:
    home = tmp_path / "own" / "mug"
    (home / "truth").mkdir(parents=True)
    picture(1).save(home / "a.png")
    (tmp_path / "own" / "prompts.txt").write_text("a red {}\n")
    Image.new("RGB", (8, 8), (255, 0, 0)).save(home / "truth" / "00.png")
    wanted = open_own_subjects(tmp_path / "own", samples=3)
    made = find_pictures(make_pictures(tmp_path / "made", wanted), wanted)
    oracle = row(Scorer(wanted, [ENCODER], tmp_path / "cache").score({"ours": made}), ORACLE)
    assert len(oracle.answers) == 1
    red = ColorEncoder().images([Image.new("RGB", (8, 8), (255, 0, 0))])[0]
    assert oracle.scores["COLOR-T"].mean == pytest.approx(float(red[0]), abs=1e-6)
    assert oracle.scores["COLOR-I, inputs"].mean == pytest.approx(
        float(red @ feature(home / "a.png")), abs=1e-6
    )


def test_masked_scores_see_the_masks_and_miss_none(wanted, pictures, tmp_path: Path) -> None:
    paths = [photo.path for subject in wanted.subjects for photo in subject.photos]
    made = find_pictures(pictures, wanted)
    masks = []
    try:
        for path in [*paths, *made.values()]:
            mask = Image.new("L", (24, 24))
            mask.paste(255, (0, 0, 12, 12))
            masks.append(path.with_suffix(".mask.png"))
            mask.save(masks[-1])
        Image.new("L", (24, 24)).save(masks[-1])
        found = Scorer(wanted, [ENCODER], tmp_path, masking="given").score({"ours": made})
        ours = row(found, "ours")
        assert ours.not_found == 1
        case, path = next(iter(made.items()))

        def cut(file: Path) -> np.ndarray:
            white = Image.new("RGB", (24, 24), (255, 255, 255))
            with Image.open(file) as opened:
                white.paste(opened.crop((0, 0, 12, 12)))
            return ColorEncoder().images([white])[0]

        photo = case.subject.photos[case.inputs[0]].path
        assert ours.values["MCOLOR-I, inputs"][0] == pytest.approx(float(cut(path) @ cut(photo)), abs=1e-6)
        assert ours.values["MCOLOR-I, all"][-1] == 0
        masks[-1].unlink()
        with pytest.raises(PictureError, match=rf"{masks[-1].name} cannot be read: No such file"):
            Scorer(wanted, [ENCODER], tmp_path, masking="given").score({"ours": made})
    finally:
        for mask in masks:
            mask.unlink(missing_ok=True)


def test_files_hold_the_scores(results: Results, tmp_path: Path) -> None:
    write_results(tmp_path, results, {"seed": 3})
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record == json.loads(json.dumps(record_of(results, {"seed": 3})))
    ours = next(each for each in record["methods"] if each["name"] == "ours")
    expected = row(results, "ours").scores["COLOR-I, others"]
    assert ours["scores"]["COLOR-I, others"] == expected.record()
    assert ours["pictures"] == 48
    assert record["encoders"] == {"color": "1"}
    assert record["evaluation_set"]["inputs"] == "all"
    lines = list(csv.DictReader(io.StringIO((tmp_path / "scores.csv").read_text())))
    (line,) = (
        each
        for each in lines
        if (each["method"], each["group"], each["score"]) == ("ours", "all", "COLOR-I, others")
    )
    assert float(line["mean"]) == pytest.approx(expected.mean, abs=1e-6)
    assert {each["group"] for each in lines} >= {"kind live", "class stuffed animal", "subject bear_plushie"}
    assert as_csv(results).count("\n") == len(lines) + 1
    for name in ("scores.md", "scores.tex"):
        text = (tmp_path / name).read_text()
        assert shown(expected) in text
        assert text.count("copy the input") == 4 + 2  # six tables; by kind two lines
    page = (tmp_path / "report.html").read_text()
    assert shown(expected) in page
    assert "best, rank 1" in page
    assert "median, rank 12" in page
    assert "worst, rank 24" in page
    assert page.count("data:image/jpeg") == 9 * 3
    assert [table.head[1] for table in score_tables(results)][:3] == ["COLOR-T"] * 3


def test_a_method_may_not_be_called_like_a_known_answer(wanted, pictures, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'copy the input' is scored beside every method"):
        Scorer(wanted, [ENCODER], tmp_path).score({COPY_INPUT: find_pictures(pictures, wanted)})


def test_a_second_scoring_encodes_nothing_and_agrees(wanted, pictures, tmp_path: Path) -> None:
    made = {"ours": find_pictures(pictures, wanted)}
    first, second = ColorEncoder(), ColorEncoder()
    one = Scorer(wanted, [first], tmp_path).score(made)
    two = Scorer(wanted, [second], tmp_path).score(made)
    assert first.pictures == 48 + 12
    assert (second.pictures, second.words) == (0, 0)
    assert record_of(one, {}) == record_of(two, {})


@pytest.mark.parametrize("count", [1, 2, 4, 5, 8, 9, 50])
def test_best_median_and_worst_show_none_twice(count: int) -> None:
    chosen = [rank for ranks in ranked(count).values() for rank in ranks]
    assert len(chosen) == len(set(chosen)) == min(count, 9)
    assert chosen[0] == 0
    assert chosen[-1] == count - 1 or count < 9
