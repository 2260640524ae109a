"""A run's folder: what is written of a shard is read again, by its reader and by the training's own."""

import json
from pathlib import Path

import numpy as np
import pytest

from jedi_diffusion.data.recipe import SetsSection, open_mixture
from jedi_diffusion.errors import DataError, OutputError, RecipeError
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.outputs import OutputFolder
from jedi_diffusion.synthesis.recipe import PARTS, SynthesisRecipe, plan_shards, round_seed
from jedi_diffusion.synthesis.records import Reason
from jedi_diffusion.synthesis.stages import synthesize
from jedi_diffusion.synthesis.work import STEP_NAMES, Work, do_all
from tests.helpers.synthesis_models import make_models

ITEMS = (ObjectName("disc", "shape"), ObjectName("Ring/2", "shape"), ObjectName("dot"))


def recipe(**changes: object) -> SynthesisRecipe:
    raw = {
        "name": "test",
        "seed": 3,
        "objects": [item.name for item in ITEMS],
        "stages": {"collages": 2, "collage_size": 128, "scene_size": 64},
        "models": {part: {"kind": "test"} for part in PARTS},
        "run": {"objects_per_shard": 2, "kept_collages": 3, "pictures": "png"},
    }
    return SynthesisRecipe.model_validate({**raw, **changes})


def make(given: SynthesisRecipe, number: int) -> tuple[object, Work]:
    plan = plan_shards(given, ITEMS)[number]
    work = do_all(plan.seed, plan.items, make_models(), given.stages, looks=given.run.kept_collages)
    return plan, work


def written(folder: Path, given: SynthesisRecipe) -> OutputFolder:
    output = OutputFolder(folder)
    output.prepare(given, ITEMS)
    for number in range(len(plan_shards(given, ITEMS))):
        output.write_shard(*make(given, number), given.run)
    output.write_manifest()
    return OutputFolder.open(folder)


def test_a_shard_is_read_as_it_was_written(tmp_path: Path) -> None:
    given = recipe()
    output = written(tmp_path, given)
    markers = output.markers()
    assert [(each.shard, each.objects, each.sets, each.pictures) for each in markers] == [
        (0, ("disc", "Ring/2"), 4, 12),
        (1, ("dot",), 2, 6),
    ]
    assert tuple(markers[0].seconds) == tuple(markers[0].counts) == STEP_NAMES
    assert output.is_whole(0)
    assert output.recipe == given
    direct = synthesize(ITEMS, make_models(), given.stages, 3)
    sets = list(output.records("set"))
    assert [(each["object"], each["collage"], each["shard"]) for each in sets] == [
        (each.info["object"], each.info["collage"], 0 if each.info["object"] != "dot" else 1)
        for each in direct.kept
    ]
    stored = output.sets()
    for number, (record, expected) in enumerate(zip(sets, direct.kept, strict=True)):
        assert record["pictures"] == expected.info["pictures"]
        assert record["captions"] == list(expected.captions)
        assert stored.stored(number).key == record["key"]
        read = stored.stored(number).decode("it")
        assert read.pictures == expected.pictures
        assert read.masks == expected.masks
        assert read.info == expected.info
        assert read.subject == expected.info["object"]
    rejections = list(output.records("rejection"))
    assert {
        json.dumps({**each.as_json(), "kind": "rejection"}, sort_keys=True) for each in direct.rejected
    } == {
        json.dumps({key: each[key] for key in each if key != "shard"}, sort_keys=True) for each in rejections
    }
    assert all(len(each["box"]) == 4 for each in rejections if each["stage"] in ("instance", "group"))


def test_the_first_collages_of_a_shard_are_kept_to_look_at(tmp_path: Path) -> None:
    output = written(tmp_path, recipe())
    collages = list(output.records("collage"))
    assert len(collages) == 6
    assert [each["look"] is not None for each in collages] == [True, True, True, False, True, True]
    for each in collages:
        assert each["prompt"].endswith("photos of the same")
        picture = output.collage_picture(each)
        assert (picture is None) == (each["look"] is None)
        if picture:
            assert picture.size == (128, 128)
            rejected = [one for one in output.records("rejection") if one["object"] == each["object"]]
            red = np.asarray(picture.crop(rejected[0]["box"])).reshape(-1, 3).mean(axis=0)
            assert not np.allclose(red, 250, atol=5)  # the box is where something was


def test_counts_add_up(tmp_path: Path) -> None:
    output = written(tmp_path, recipe())
    for marker in output.markers():
        counts = marker.step_counts()
        drawn = 2 * len(marker.objects)
        assert (counts["prompt"].received, counts["prompt"].made, counts["collage"].made) == (drawn,) * 3
        assert counts["instance"].made == counts["group"].received == 4 * drawn
        assert counts["group"].made == drawn
        assert counts["draft"].received == counts["caption"].made == counts["set"].received == 3 * drawn
        assert counts["set"].made == marker.sets
        assert dict(counts["instance"].rejected) == {"cut_by_border": drawn, "too_small": drawn}
        assert dict(counts["group"].rejected) == {Reason.ALONE.name.lower(): drawn}


def test_training_reads_the_shards(tmp_path: Path) -> None:
    written(tmp_path, recipe())
    mixture = open_mixture([SetsSection(place=str(tmp_path / "shards"))], 32, 0)
    for place in range(8):
        found = mixture[place]
        assert 2 <= len(found) <= 3
        assert found.pictures[0].size == (32, 32)
        assert found.masks is not None
        assert found.info["object"] in {item.name for item in ITEMS}
    assert not mixture.quarantine


def test_the_manifest_is_a_function_of_the_recipe_alone(tmp_path: Path) -> None:
    one, two = (written(tmp_path / name, recipe()) for name in ("one", "two"))
    assert one.whole
    manifests = [(each.folder / "manifest.jsonl").read_bytes() for each in (one, two)]
    assert manifests[0] == manifests[1]
    header, *lines = map(json.loads, manifests[0].splitlines())
    assert (header["shards"], header["sets"], header["pictures"]) == (2, 6, 18)
    assert [each["shard"] for each in lines] == [0, 1]
    other = written(tmp_path / "other", recipe(seed=4))
    assert (other.folder / "manifest.jsonl").read_bytes() != manifests[0]


def test_a_shard_that_is_not_whole_is_told(tmp_path: Path) -> None:
    given = recipe()
    output = written(tmp_path, given)
    tar = tmp_path / "shards" / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:-512])
    assert not output.is_whole(0)
    (tmp_path / "shards" / "00001.json").write_text("{")
    assert not output.is_whole(1)
    with pytest.raises(DataError, match=r"00001\.json is no marker"):
        output.markers()
    output.clear(1)
    assert [each.shard for each in output.markers()] == [0]
    assert not list((tmp_path / "shards").glob("*00001*"))
    with pytest.raises(DataError, match="holds no synthesis"):
        OutputFolder.open(tmp_path / "nowhere")


def test_another_recipe_or_other_objects_are_refused(tmp_path: Path) -> None:
    output = written(tmp_path, recipe())
    with pytest.raises(RecipeError, match="another recipe"):
        output.prepare(recipe(seed=4), ITEMS)
    with pytest.raises(RecipeError, match="other objects"):
        output.prepare(recipe(), ITEMS[:2])
    more_patient = recipe().run.model_copy(update={"failures": 1000, "batch": 2})
    output.prepare(recipe().model_copy(update={"run": more_patient}), ITEMS)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        OutputFolder(tmp_path / "file" / "run").prepare(recipe(), ITEMS)


def test_rounds_have_seeds_of_their_own() -> None:
    plans = plan_shards(recipe(rounds=3), ITEMS)
    assert [(each.number, each.round, len(each.items)) for each in plans] == [
        (0, 0, 2),
        (1, 0, 1),
        (2, 1, 2),
        (3, 1, 1),
        (4, 2, 2),
        (5, 2, 1),
    ]
    assert [each.seed for each in plans] == [round_seed(3, each.round) for each in plans]
    assert len({each.seed for each in plans}) == 3
    assert plans[0].seed == 3
