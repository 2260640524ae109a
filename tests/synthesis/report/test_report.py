"""The report of a small run: its numbers, its page, and folders that cannot be reported on."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.errors import DataError
from jedi_diffusion.synthesis.report import page
from jedi_diffusion.synthesis.report.facts import Facts, PhotoSubject, as_json, read_facts, read_sets, sample
from jedi_diffusion.synthesis.report.page import report_page, write_report
from jedi_diffusion.synthesis.report.sheets import (
    COLLAGE_SIDE,
    Chosen,
    galleries,
    ranked,
    surroundings,
    with_boxes,
)
from tests.helpers.scoring_encoders import ColorEncoder
from tests.helpers.small_benchmarks import picture
from tests.helpers.synthesis_runs import write_run


def report(folder: Path, **more: object) -> tuple[Facts, Chosen]:
    chosen = Chosen()
    return read_facts(folder, visit=chosen.visit, **more), chosen


class Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object")
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]


def test_numbers_are_those_of_the_run(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    facts, _ = report(tmp_path, encoders=[ColorEncoder()])
    found = as_json(facts)
    json.dumps(found)
    assert found["whole"]
    assert found["shards"] == {"whole": 2, "planned": 2}
    assert found["collages"] == {"made": 6, "without_sets": 0}
    assert found["counts"]["instance"]["rejected"] == {"cut_by_border": 6, "too_small": 6}
    data = found["training_data"]
    assert (data["sets"], data["pictures"], data["subjects"], data["categories"]) == (6, 18, 6, 3)
    assert found["set_sizes"] == {"3": 6}
    assert found["objects"] == {"disc": 2, "ring": 2, "dot": 2}
    assert found["kinds"] == {"shape": 4, "point": 2}
    assert sum(found["styles"].values()) == 18
    styled = sum(
        any(step.get("style") for step in each["steps"])
        for made in output.records("set")
        for each in made["pictures"]
    )
    assert found["styles"]["no style"] == 18 - styled
    pictures = [made.pictures for _, made in read_sets(output, output.markers(), range(6))]
    rows = [ColorEncoder().images(each) for each in pictures]
    inside = [(each @ each.T)[np.triu_indices(3, 1)].mean() for each in rows]
    assert data["similarity"]["COLOR-I"]["inside"]["mean"] == pytest.approx(np.mean(inside), abs=1e-6)
    between = np.mean([(rows[place] @ rows[place + 1].T).mean() for place in (0, 2, 4)])
    assert data["similarity"]["COLOR-I"]["between"]["mean"] == pytest.approx(between, abs=1e-6)
    assert found["real_photos"] is None


def test_filters_are_measured_by_what_was_drawn(tmp_path: Path) -> None:
    write_run(tmp_path)
    found = as_json(report(tmp_path)[0])
    scores = found["filters"]["scores"]
    assert found["filters"]["collages"] == 6
    assert (scores["border"]["dropped"], scores["border"]["rightly"]) == (6, 6)
    assert (scores["affinity graph"]["dropped"], scores["affinity graph"]["rightly"]) == (6, 6)
    assert scores["least size"]["dropped"] == 6
    assert (scores["affinity graph"]["precision"], scores["affinity graph"]["recall"]) == (1.0, 1.0)
    # a sixth disc is whole, but too small to be kept: of 6 drawn pairs of red ones, 3 are in a set
    assert (scores["all together"]["right"], scores["all together"]["both"]) == (36, 18)
    own = found["thresholds"]["choices"]["this run's"]
    assert own == {"threshold": 0.95, "precision": 1.0, "recall": 1.0, "kept": 0.75}
    assert (found["thresholds"]["pairs"], found["thresholds"]["pairs_of_one_subject"]) == (36, 18)


def test_nothing_is_said_of_filters_where_nothing_is_known(tmp_path: Path) -> None:
    write_run(tmp_path, truth=False)
    facts, _ = report(tmp_path)
    found = as_json(facts)
    assert found["filters"] is None
    assert list(found["thresholds"]["choices"]) == ["this run's"]
    shown = report_page(facts, [])
    assert "Filters against the truth" not in shown
    assert "Affinity thresholds" in shown
    assert "precision of joined pairs" not in shown


def test_the_page_is_whole_and_asks_for_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    photos = []
    for number, name in enumerate(("a", "b")):
        files = [tmp_path / f"{name}{each}.png" for each in range(3)]
        for each, file in enumerate(files):
            picture(10 * number + each).save(file)
        photos.append(PhotoSubject(name, "cup", files))
    facts, chosen = report(tmp_path / "run", encoders=[ColorEncoder(column="CLIP-I")], photos=photos)
    written, record = write_report(facts, galleries(facts, chosen), tmp_path / "out", ["A <remark>."])
    html = written.read_text(encoding="utf-8")
    reader = Addresses()
    reader.feed(html)
    assert all(each.startswith(("data:image/jpeg;base64,", "#part-")) for each in reader.found)
    assert not re.search(r"https?://|url\(|@import", html)
    for each in (
        "Training sets: a &lt;test&gt;",
        "A &lt;remark&gt;.",
        "Table 8",
        "0.849",
        "Near duplicates",
        "Filters against the truth",
        "Affinity thresholds",
        "Kept sets",
        "Collages and what was taken of them",
        "<h3>cut off by the border</h3>",
    ):
        assert each in html, each
    assert "not finished" not in html
    # every set with its 3 pictures, 4 kept collages at most a shard, and 5 collages' rejected instances
    shown = sum(each.startswith("data:") for each in reader.found)
    assert shown == 6 * 3 + 5 + 3 * 5
    found = json.loads(record.read_text())
    assert found == as_json(facts)
    assert found["real_photos"]["subjects"] == 2
    assert found["real_photos"]["categories"] == 1
    rows = [ColorEncoder().images([picture(10 * number + each) for each in range(3)]) for number in (0, 1)]
    expected = np.mean([(each @ each.T)[np.triu_indices(3, 1)].mean() for each in rows])
    assert found["real_photos"]["similarity"]["CLIP-I"]["inside"]["mean"] == pytest.approx(expected, abs=1e-6)


def test_of_many_objects_the_commonest_are_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path)
    facts, _ = report(tmp_path)
    assert "others have" not in report_page(facts, [])
    monkeypatch.setattr(page, "BARS", 1)
    shown = report_page(facts, [])
    assert "Sets of each object. 2 others have 4 together (66.7%)." in shown
    assert "<td>2 (33.3%)</td>" in shown


def test_only_some_sets_are_read_but_all_are_counted(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    encoder = ColorEncoder()
    facts, _ = report(tmp_path, encoders=[encoder], sets=4, seed=1)
    assert encoder.pictures == 12
    assert len(facts.sampled) == 4
    assert as_json(facts)["training_data"]["sets"] == 6
    stored = output.sets()
    for number, made in read_sets(output, output.markers(), facts.sampled):
        assert made.pictures == stored.stored(number).decode("it").pictures
    assert sample(0, 5, 0) == []
    assert sample(6, 9, 0) == list(range(6))
    assert sample(1000, 9, 0) == sample(1000, 9, 0) != sample(1000, 9, 1)


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    write_run(tmp_path, shards=1)
    facts, chosen = report(tmp_path)
    assert not facts.whole
    assert as_json(facts)["shards"] == {"whole": 1, "planned": 2}
    assert "This run is not finished: 1 of 2 shards are whole." in report_page(
        facts, galleries(facts, chosen)
    )


def test_a_run_of_which_no_set_came_is_reported(tmp_path: Path) -> None:
    write_run(tmp_path, stages={"collages": 2, "collage_size": 128, "scene_size": 64, "affinity": 1.0})
    facts, chosen = report(tmp_path, encoders=[ColorEncoder()])
    found = as_json(facts)
    assert found["training_data"]["sets"] == found["training_data"]["subjects"] == 0
    assert found["collages"] == {"made": 6, "without_sets": 6}
    page = report_page(facts, galleries(facts, chosen))
    assert "Rejected collages" in page
    assert "Kept sets" not in page


def test_folders_that_are_no_run_or_damaged_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere holds no synthesis"):
        report(tmp_path / "nowhere")
    write_run(tmp_path / "begun", shards=0)
    with pytest.raises(DataError, match=r"begun holds no whole shard yet"):
        report(tmp_path / "begun")
    cut = write_run(tmp_path / "cut")
    tar = cut.shards / "00001.tar"
    tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(DataError, match=r"Shard 00001 of .*cut is damaged.*makes it again"):
        report(tmp_path / "cut")
    bad = write_run(tmp_path / "bad")
    records = bad.shards / "00000.records.jsonl"
    records.write_text(records.read_text().replace('"kind"', '"kink"'))
    with pytest.raises(DataError, match=r"00000\.records\.jsonl is damaged: .*delete shards/00000\.json"):
        report(tmp_path / "bad")
    spoiled = write_run(tmp_path / "spoiled")
    (spoiled.folder / "recipe.json").write_text("{}")
    with pytest.raises(DataError, match=r"recipe\.json is no recipe of a synthesis"):
        report(tmp_path / "spoiled")


def test_kept_sets_are_shown_from_the_least_alike(tmp_path: Path) -> None:
    write_run(tmp_path)
    facts, _ = report(tmp_path, encoders=[ColorEncoder()])
    places, note = ranked(facts)
    scores = facts.features.inside("COLOR-I")
    assert [place for place, _ in places] == np.argsort(scores, kind="stable").tolist()
    assert places[0][1] == f"least alike, COLOR-I {scores.min():.3f}"
    assert "6 sets ordered by COLOR-I" in note


def test_boxes_are_drawn_where_instances_are(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    chosen = report(tmp_path)[1]
    shown = chosen.collages(True)
    assert len(shown) == 5
    assert not chosen.collages(False)
    for each in shown:
        drawn = with_boxes(output.collage_picture(each.record), each)
        assert drawn.size == (COLLAGE_SIDE,) * 2
        for instance in each.instances:
            corner = tuple(round(edge * COLLAGE_SIDE / 128) for edge in instance.box[:2])
            red, green, _ = drawn.getpixel((corner[0] + 1, corner[1]))
            assert (red > green) == (instance.set is None), instance
    rejected = chosen.rejected()
    assert {reason: len(each) for reason, each in rejected.items()} == {
        "alone": 5,
        "cut_by_border": 5,
        "too_small": 5,
    }


@pytest.mark.parametrize("box", [(0, 0, 6, 30), (40, 20, 60, 30), (70, 50, 90, 60), (0, 0, 90, 60)])
def test_crops_are_squares_around_their_boxes(box: tuple[int, int, int, int]) -> None:
    picture = Image.new("L", (90, 60))
    picture.paste(255, box)
    crop = surroundings(picture, box)
    assert crop.width == crop.height <= 60
    seen, drawn = (np.asarray(each).sum() / 255 for each in (crop, picture))
    assert seen == drawn or crop.width == 60 < box[2] - box[0]
