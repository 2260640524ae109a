"""Training from latents that were there before gives what training from pictures gives; stale ones never."""

import json
from pathlib import Path

import pytest
import torch

from jedi_diffusion.cli import main
from jedi_diffusion.cli.train import _open_mixture
from jedi_diffusion.data.encoded_shard import EncodedShard
from jedi_diffusion.data.quarantine import Quarantine
from jedi_diffusion.data.record import StoredSet
from jedi_diffusion.data.shards import ShardWriter, load_index
from jedi_diffusion.errors import DataError, OutputError, UsageError
from jedi_diffusion.models import open_base
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.train import encoding
from jedi_diffusion.train.encoding import Encoding, ShardEncoder, encode_shards
from jedi_diffusion.train.frozen import encoders_fingerprint
from jedi_diffusion.train.joint_recipe import JointRecipe
from jedi_diffusion.train.joint_run import JointRun, start_processes
from jedi_toybox import folder_of
from tests.helpers.object_store import object_store
from tests.helpers.small_sets import subject_set
from tests.helpers.tiny_runs import recipe, save_base

SIZES = (3, 2, 4, 2, 3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture(scope="module")
def pipeline(base: Path) -> JeDiPipeline:
    return open_base(str(base))


def save_shards(place: Path | str, first: int = 0) -> str:
    """Three shards of two, two and one sets; pictures of 40 pixels."""
    with ShardWriter(place, sets=2) as writer:
        for seed, count in enumerate(SIZES, start=first):
            writer.write(StoredSet.encode(f"{seed:03d}", subject_set(seed, count, side=40), "png"))
    return str(place)


def encoded(place: str, pipeline: JeDiPipeline, base: Path, **changes: object) -> None:
    settings = {"name": "latents", "base": str(base), "resolution": 32, "store": "float32", "threads": 2}
    encode_shards(pipeline, place, Encoding(**settings | changes))


def source(place: str, **more: object) -> dict:
    return {"kind": "sets", "place": place, "sizes": [2, 3], **more}


def run_of(folder: Path, base: Path, *sources: dict, **changes: object) -> JointRun:
    steps = {"training__steps": 2} | changes
    raw = recipe(base, folder, data__sources=list(sources), conditions__no_text=0.3, **steps)
    raw["conditions"]["no_caption"] = 0.4
    checked = JointRecipe.model_validate(raw)
    folder.mkdir(parents=True)
    accelerator = start_processes(checked, folder, "cpu")
    return JointRun(checked, _open_mixture(checked, folder, accelerator), folder, accelerator)


def losses(run: JointRun) -> list[float]:
    run.trainer.train()
    return [json.loads(line)["loss"] for line in (run.folder / "log.jsonl").read_text().splitlines()]


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("training from latents needs no pictures and no encoders")


def test_the_losses_are_those_of_training_from_pictures(tmp_path, base, pipeline, monkeypatch) -> None:
    place = save_shards(tmp_path / "sets")
    for store in ("float32", "float16", "bfloat16"):
        encoded(place, pipeline, base, name=store, store=store)
    expected = losses(run_of(tmp_path / "online", base, source(place), training__steps=3))
    monkeypatch.setattr(JeDiPipeline, "encode_pictures", refuse)
    monkeypatch.setattr(JeDiPipeline, "encode_captions", refuse)
    monkeypatch.setattr("jedi_diffusion.data.record.open_picture", refuse)
    made = {
        store: losses(run_of(tmp_path / store, base, source(place, encoded=store), training__steps=3))
        for store in ("float32", "float16", "bfloat16")
    }
    assert made["float32"] == expected
    assert made["float16"] == pytest.approx(expected, rel=2e-3)
    assert made["bfloat16"] == pytest.approx(expected, rel=2e-2)
    assert made["bfloat16"] != made["float16"] != expected


def test_sdxl_and_encoded_beside_online_sources(tmp_path) -> None:
    """Both text encoders, pooled features, size conditions; micro-batches that mix both kinds of source."""
    base = save_base(tmp_path / "base", "sdxl")
    pipeline = open_base(str(base))
    first, second = save_shards(tmp_path / "one"), save_shards(tmp_path / "two", first=10)
    encoded(first, pipeline, base)
    encoded(second, pipeline, base)
    runs = {
        name: run_of(tmp_path / name, base, source(first, **a), source(second, **b))
        for name, a, b in (
            ("online", {}, {}),
            ("mixed", {"encoded": "latents"}, {}),
            ("encoded", {"encoded": "latents"}, {"encoded": "latents"}),
        )
    }
    assert [run.mixture.encoded for run in runs.values()] == [False, False, True]
    expected = losses(runs.pop("online"))
    for run in runs.values():
        assert losses(run) == pytest.approx(expected, rel=1e-6)


def test_single_pictures_and_workers(tmp_path, base, pipeline) -> None:
    place = tmp_path / "single"
    with ShardWriter(place) as writer:
        for seed in range(4):
            writer.write(StoredSet.encode(f"{seed}", subject_set(seed, 1, side=40), "png"))
    encoded(str(place), pipeline, base, kind="single")
    single = {"kind": "single", "place": str(place), "sizes": [1]}
    expected = losses(run_of(tmp_path / "online", base, single))
    read = run_of(tmp_path / "run", base, {**single, "encoded": "latents"}, data__workers=1)
    assert losses(read) == expected
    with pytest.raises(DataError, match="was encoded as single, not as sets"):
        run_of(tmp_path / "other", base, source(str(place), encoded="latents"))


def test_sheets_of_samples_are_still_drawn(tmp_path, base, pipeline) -> None:
    place = save_shards(tmp_path / "sets")
    encoded(place, pipeline, base)
    given = source(place, encoded="latents")
    run_of(tmp_path / "run", base, given, training__steps=1, records__sample_every=1).train()
    assert (tmp_path / "run" / "samples-0000001.png").stat().st_size > 1000


def test_stale_latents_are_refused_in_one_sentence(tmp_path, base, pipeline) -> None:
    place = save_shards(tmp_path / "sets")
    given = source(place, encoded="latents")
    with pytest.raises(DataError, match=r"00000\.tar has no latents called 'latents' .* `jedi data encode`"):
        run_of(tmp_path / "a", base, given)
    encoded(place, pipeline, base)
    other = save_base(tmp_path / "other")
    weights = open_base(str(other))
    with torch.no_grad():
        weights.text_encoder.get_input_embeddings().weight[0] += 1
    weights.text_encoder.save_pretrained(other / "text_encoder")
    with pytest.raises(DataError, match=r"latents\.safetensors is stale: .* not those of .*other"):
        run_of(tmp_path / "b", other, given)
    with pytest.raises(DataError, match="encoded at 32 pixels, but the recipe asks for 64"):
        run_of(tmp_path / "c", base, given, data__resolution=64)
    last = Path(place) / "00002.tar"
    last.unlink()
    with ShardWriter(tmp_path / "changed") as writer:
        writer.write(StoredSet.encode("new", subject_set(9, 3, side=40), "png"))
    for file in (tmp_path / "changed").iterdir():
        file.rename(Path(place) / file.name.replace("00000", "00002"))
    with pytest.raises(DataError, match=r"latents\.safetensors is stale: .*00002\.tar has changed"):
        run_of(tmp_path / "d", base, given)
    encoded(place, pipeline, base)
    run_of(tmp_path / "e", base, given)


def test_the_fingerprint_is_that_of_all_that_encodes(tmp_path, base, pipeline) -> None:
    again = open_base(str(base))
    known = encoders_fingerprint(again, 32)
    assert known == encoders_fingerprint(pipeline, 32)
    again.save_pretrained(tmp_path / "joint")  # as training saves it
    assert known == encoders_fingerprint(open_base(str(tmp_path / "joint")), 32)
    with torch.no_grad():
        again.unet.conv_in.weight.add_(1)
    assert known == encoders_fingerprint(again, 32)
    found = {known, encoders_fingerprint(again, 64)}
    again.register_to_config(force_zeros_for_empty_prompt=True)
    found.add(encoders_fingerprint(again, 32))
    again.vae.register_to_config(scaling_factor=0.5)
    found.add(encoders_fingerprint(again, 32))
    again.tokenizer.model_max_length = 9
    found.add(encoders_fingerprint(again, 32))
    with torch.no_grad():
        again.vae.encoder.conv_in.bias[0] += 1e-3
    found.add(encoders_fingerprint(again, 32))
    assert len(found) == 6


def test_what_cannot_be_used_is_replaced_as_online(tmp_path, base, pipeline) -> None:
    place = save_shards(tmp_path / "sets")
    tar = Path(place) / "00001.tar"
    data = bytearray(tar.read_bytes())
    data[load_index(str(tar))[0].files["png"].offset + 30] ^= 1
    tar.write_bytes(data)
    said: list[str] = []
    quarantine = Quarantine(tmp_path / "bad.jsonl")
    settings = Encoding("latents", str(base), 32, store="float32")
    key = encoders_fingerprint(pipeline, 32)
    encoder = ShardEncoder(pipeline, key, place, settings, quarantine, said.append)
    for each in encoder.open():
        encoder.encode(each, lambda: None)
    assert (encoder.count.tars, encoder.count.sets, encoder.count.faults) == (3, 4, 1)
    assert "checksum of its png" in said[0]
    assert quarantine.reasons()[place, f"002 of {tar}"] == said[0]
    assert EncodedShard(f"{tar}.latents.safetensors").about.faults == {0: said[0]}
    online = run_of(tmp_path / "online", base, source(place))
    expected = losses(online)
    run = run_of(tmp_path / "run", base, source(place, encoded="latents"))
    assert losses(run) == expected
    assert run.mixture.quarantine.reasons() == online.mixture.quarantine.reasons() != {}
    strict = ShardEncoder(pipeline, key, place, Encoding("x", "", 32), Quarantine(limit=0), said.append)
    with pytest.raises(DataError, match="more than the limit of 0"):
        strict.encode(strict.open()[1], lambda: None)


def test_a_damaged_file_is_named_and_a_damaged_row_replaced(tmp_path, base, pipeline) -> None:
    place = save_shards(tmp_path / "sets")
    encoded(place, pipeline, base)
    file = Path(place) / "00000.tar.latents.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    run = run_of(tmp_path / "run", base, source(place, encoded="latents"))
    losses(run)
    assert any("the sum of its" in reason for reason in run.mixture.quarantine.reasons().values())
    for bad in (whole[:100], b"", whole[:8] + b"{" * (len(whole) - 8), b"\0" * len(whole)):
        file.write_bytes(bad)
        with pytest.raises(DataError, match=r"00000\.tar\.latents\.safetensors (is damaged|gave)"):
            run_of(tmp_path / str(len(bad)), base, source(place, encoded="latents"))
        (tmp_path / str(len(bad))).rmdir()
    encoded(place, pipeline, base)
    assert file.read_bytes() == whole


def test_a_stopped_encoding_goes_on(tmp_path, base, pipeline, monkeypatch) -> None:
    place = save_shards(tmp_path / "sets")
    write = encoding.ShardEncoder._write
    calls = []

    def dies(self, writer, collection, group):
        calls.append(writer.url)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(self, writer, collection, group)

    monkeypatch.setattr(encoding.ShardEncoder, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        encoded(place, pipeline, base)
    names = [each.name for each in Path(place).iterdir() if "latents" in each.name]
    assert names == ["00000.tar.latents.safetensors"]
    assert not [each for each in Path(place).iterdir() if each.name.startswith(".")]
    first = (Path(place) / names[0]).stat()
    encoded(place, pipeline, base)
    assert len(calls) == 4
    assert (Path(place) / names[0]).stat().st_mtime_ns == first.st_mtime_ns
    with pytest.raises(UsageError, match="in float32: choose another --name, or --replace it"):
        encoded(place, pipeline, base, store="float16")
    encoded(place, pipeline, base, store="float16", replace=True)
    assert EncodedShard(f"{place}/00000.tar.latents.safetensors").about.dtype == "float16"
    (Path(place) / names[0]).unlink()
    (Path(place) / names[0]).mkdir()
    with pytest.raises(OutputError, match=r"00000\.tar\.latents\.safetensors cannot be written"):
        encoded(place, pipeline, base, store="float16")


def test_the_command_shares_shards_between_processes(tmp_path, base, pipeline, monkeypatch, capfd) -> None:
    place = save_shards(tmp_path / "sets")
    words = ["data", "encode", place, "--base", str(base), "--resolution", "32", "--device", "cpu"]
    assert main([*words, "--name", "alone"]) == 0
    assert "5 sets with 14 pictures of 3 shards are encoded as alone; 0 shards were" in capfd.readouterr().out
    for rank, said in enumerate(("process 1 of 2: 3 sets", "process 2 of 2: 2 sets")):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert main([*words, "--name", "shared"]) == 0
        assert said in capfd.readouterr().out
    for number in range(3):
        alone, shared = (
            Path(f"{place}/{number:05d}.tar.{name}.safetensors").read_bytes() for name in ("alone", "shared")
        )
        assert alone == shared
    assert main([*words, "--name", "alone"]) == 0
    assert "0 sets with 0 pictures of 0 shards are encoded as alone; 1 shards were" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resolution", "33"], "--resolution is 33, but must be a multiple of 8"),
        (["--resolution", "32", "--name", "a/b"], "--name is 'a/b'"),
        (["--resolution", "32", "--batch", "0"], "--batch is 0"),
        (["--resolution", "32", "--base", "/none"], "There is no model '/none'"),
    ],
)
def test_wrong_requests_are_refused(base, words, said, capfd) -> None:
    assert main(["data", "encode", "x", "--base", str(base), *words]) > 0
    assert said in capfd.readouterr().err


def test_latents_beside_shards_on_s3(tmp_path, base, pipeline, monkeypatch) -> None:
    with object_store(monkeypatch) as bucket:
        place = save_shards(f"{bucket}/sets")
        encoded(place, pipeline, base)
        here = save_shards(tmp_path / "sets")
        encoded(here, pipeline, base)
        expected = losses(run_of(tmp_path / "here", base, source(here, encoded="latents")))
        assert losses(run_of(tmp_path / "there", base, source(place, encoded="latents"))) == expected


def test_the_bundled_model_encodes_for_recipes_that_name_it(tmp_path, capsys) -> None:
    """`toybox` is the name of a folder of the package in every command, never a Hub id."""
    place = save_shards(tmp_path / "sets")
    words = ["data", "encode", place, "--base", "toybox", "--resolution", "32", "--device", "cpu"]
    assert main(words) == 0, capsys.readouterr().err
    run = run_of(tmp_path / "run", Path(folder_of("toybox")), source(place, encoded="latents"))
    assert run.mixture.encoded
