"""Encoded shards: what others read of them, what is asked of a server, and when they are refused."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open

from jedi_diffusion.data import encoded_shard
from jedi_diffusion.data.encoded import EncodedSets
from jedi_diffusion.data.encoded_shard import (
    EncodedAbout,
    EncodedSet,
    EncodedShard,
    EncodedWriter,
    encoded_name,
)
from jedi_diffusion.data.recipe import Source
from jedi_diffusion.data.shards import load_index
from jedi_diffusion.data.stored import SinglePictures, StoredSets
from jedi_diffusion.errors import DataError, UsageError
from tests.helpers.small_sets import write_shards

COUNTS = (3, 0, 1, 4)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
READER: TypeAdapter = TypeAdapter(Source)


def captions_of(row: int) -> list[str]:
    return ["the same", *(f"{row} {number}" for number in range(COUNTS[row] - 1))]


def latents_of(row: int) -> torch.Tensor:
    return torch.randn(COUNTS[row], 2, 4, 4, generator=torch.Generator().manual_seed(row))


def text_of(caption: str, width: int) -> torch.Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(zlib.crc32(caption.encode())))


def about(dtype: str = "float32", index: str = "x") -> EncodedAbout:
    return EncodedAbout(
        tar="a.tar", index=index, encoders="key", base="b", kind="sets", resolution=32, dtype=dtype
    )


def written(url: Path, dtype: str = "float32", pooled: bool = False) -> EncodedShard:
    """Four sets; the second one cannot be used."""
    with EncodedWriter(str(url), about(dtype)) as writer:
        for row, count in enumerate(COUNTS):
            if not count:
                writer.add_fault("it is broken")
                continue
            new = writer.unknown(captions_of(row))
            if new:
                text = torch.stack([text_of(caption, 15).view(5, 3) for caption in new])
                extra = torch.stack([text_of(caption, 6) for caption in new]) if pooled else None
                writer.add_captions(new, text, extra)
            writer.add_set(latents_of(row), captions_of(row))
        assert not url.exists()
    return EncodedShard(str(url))


def same(given: EncodedSet, row: int, chosen: list[int], dtype: torch.dtype, pooled: bool) -> None:
    assert torch.equal(given.latents, latents_of(row)[chosen].to(dtype))
    captions = [captions_of(row)[number] for number in chosen]
    assert torch.equal(given.text, torch.stack([text_of(each, 15).view(5, 3) for each in captions]).to(dtype))
    assert torch.equal(given.null_text, text_of("", 15).view(5, 3).to(dtype))
    if pooled:
        assert torch.equal(given.pooled, torch.stack([text_of(each, 6) for each in captions]).to(dtype))
        assert torch.equal(given.null_pooled, text_of("", 6).to(dtype))
    else:
        assert given.pooled is None is given.null_pooled


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_come_back_as_they_were_stored(tmp_path: Path, dtype: str, pooled: bool, monkeypatch) -> None:
    shard = written(tmp_path / "x", dtype, pooled)
    for near in (1, 2**18):  # rows one by one, and all in one go
        monkeypatch.setattr(encoded_shard, "NEAR_BYTES", near)
        for row, chosen in ((0, [2, 0]), (3, [1, 3, 0, 2]), (2, [0]), (3, [3])):
            same(shard.read(row, chosen), row, chosen, DTYPES[dtype], pooled)
    assert [shard.pictures(row) for row in range(len(shard))] == list(COUNTS)
    with pytest.raises(DataError, match="it is broken"):
        shard.read(1, [])
    none = shard.read(0, [])
    assert (tuple(none.latents.shape), none.latents.dtype) == ((0, 2, 4, 4), DTYPES[dtype])
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_it_is_a_safetensors_file(tmp_path: Path) -> None:
    """By safetensors' own reader: every different caption once, the empty one first."""
    written(tmp_path / "x", "bfloat16", pooled=True)
    with safe_open(tmp_path / "x", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads(file.metadata()["jedi"])
    for number in range(8):  # headers end at multiples of eight bytes, as safetensors' own writer has it
        facts_of_tar = about().model_copy(update={"base": "b" * number})
        with EncodedWriter(str(tmp_path / f"{number}"), facts_of_tar) as writer:
            writer.add_captions([""], torch.zeros(1, 1, 1), None)
            writer.add_set(torch.zeros(1, 1, 1, 1), [""])
        assert int.from_bytes((tmp_path / f"{number}").read_bytes()[:8], "little") % 8 == 0
    assert torch.equal(tensors["latents"], torch.cat([latents_of(r) for r in (0, 2, 3)]).bfloat16())
    assert tensors["first"].tolist() == [0, 3, 3, 4, 8]
    assert tensors["caption"].tolist() == [1, 2, 3, 1, 1, 4, 5, 6]
    assert (tuple(tensors["text"].shape), tuple(tensors["pooled"].shape)) == ((7, 5, 3), (7, 6))
    assert facts["faults"] == {"1": "it is broken"}


def test_a_set_is_a_few_ranges_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = written(tmp_path / "x")
    shard.read(0, [0])  # tables and the empty caption are kept
    asked = []
    read = encoded_shard.read_bytes

    def spy(url: str, start: int, end: int) -> bytes:
        asked.append(end - start)
        return read(url, start, end)

    monkeypatch.setattr(encoded_shard, "read_bytes", spy)
    shard.read(3, [3, 0, 1])
    assert asked == [4 * 2 * 16 * 4, 6 * 15 * 4]
    monkeypatch.setattr(encoded_shard, "NEAR_BYTES", 1)
    asked.clear()
    shard.read(3, [2, 0])
    assert asked == [2 * 16 * 4] * 2 + [15 * 4] * 2
    monkeypatch.setattr(encoded_shard, "NEAR_BYTES", 2 * 2 * 16 * 4)  # two rows of latents, four of text
    asked.clear()
    shard.read(3, [2, 0])
    assert asked == [3 * 2 * 16 * 4, 5 * 15 * 4]
    asked.clear()
    shard.read(3, [3, 0])
    assert asked == [2 * 16 * 4] * 2 + [15 * 4] * 2


def test_numbers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    writer = EncodedWriter(str(tmp_path / "x"), about("float16"))
    with pytest.raises(DataError, match="text embeddings do not fit float16: encode with --store bfloat16"):
        writer.add_captions([""], torch.full((1, 2, 3), 1e5), None)
    writer.add_captions(["a"], torch.zeros(1, 2, 3), None)
    with pytest.raises(DataError, match="latents are not finite: encode with --precision float32"):
        writer.add_set(torch.full((1, 2, 4, 4), torch.nan), ["a"])
    with pytest.raises(DataError, match=r"No set of a\.tar can be used"):
        writer.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def relabelled(path: Path, change: Callable[[dict], object]) -> None:
    """Writes the file's header anew, after a change."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def without_last_row(*names: str) -> Callable[[dict], object]:
    def change(header: dict) -> None:
        for entry in map(header.get, names):
            start, end = entry["data_offsets"]
            entry["data_offsets"] = [start, end - (end - start) // entry["shape"][0]]
            entry["shape"][0] -= 1

    return change


def latents(**changes: object) -> Callable[[dict], object]:
    return lambda header: header["latents"].update(changes)


def forget_resolution(header: dict) -> None:
    facts = json.loads(header["__metadata__"]["jedi"])
    del facts["resolution"]
    header["__metadata__"]["jedi"] = json.dumps(facts)


LIES: dict[str, Callable[[dict], object]] = {
    "the rows of caption do not fit the others": without_last_row("caption"),
    "the rows of pooled, pooled.sum do not fit the others": without_last_row("pooled", "pooled.sum"),
    "'text'": lambda header: header.pop("text"),
    "a tensor does not fit the file": latents(data_offsets=[10**6, 10**6 + 8 * 128]),
    r"shape \(8, -2, -4, 4\)": latents(shape=[8, -2, -4, 4]),
    r"shape \(8, 0, 4, 4\)": latents(shape=[8, 0, 4, 4], data_offsets=[0, 0]),
    r"shape \(-8, 2, 4, 4\)": latents(shape=[-8, 2, 4, 4], data_offsets=[1024, 0]),
    "'PICKLE'": latents(dtype="PICKLE"),
    "Field required": forget_resolution,
    "'jedi'": lambda header: header["__metadata__"].clear(),
}


@pytest.mark.parametrize("reason", LIES)
def test_headers_that_lie_are_refused(tmp_path: Path, reason: str) -> None:
    written(tmp_path / "x", pooled=True)
    relabelled(tmp_path / "x", LIES[reason])
    with pytest.raises(DataError, match=rf"x is damaged \(.*{reason}.*`jedi data encode`"):
        EncodedShard(str(tmp_path / "x"))


def test_damage_is_named_where_it_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x"
    written(path)
    whole = path.read_bytes()
    latents = latents_of(0)[1].numpy().tobytes()
    path.write_bytes(whole.replace(latents, bytes(len(latents))))
    shard = EncodedShard(str(path))
    assert len(shard.read(0, [0, 2])) == 2
    with pytest.raises(DataError, match="x is damaged: the sum of its latents number 1 is wrong"):
        shard.read(0, [1])
    path.write_bytes(whole[:20])
    with pytest.raises(DataError, match="it is cut off, or no safetensors file"):
        EncodedShard(str(path))
    path.write_bytes(whole)
    facts = json.loads(shard.about.model_dump_json()) | {"faults": {}}
    relabelled(path, lambda header: header["__metadata__"].update(jedi=json.dumps(facts)))
    with pytest.raises(DataError, match="x holds nothing for set number 1"):
        EncodedShard(str(path)).read(1, [])


def test_a_header_is_read_in_one_go_or_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "x")
    size = 8 + int.from_bytes((tmp_path / "x").read_bytes()[:8], "little")
    asked: list[tuple[int, int]] = []
    read = encoded_shard.read_bytes

    def spy(url: str, start: int, end: int) -> bytes:
        asked.append((start, end))
        return read(url, start, end)

    monkeypatch.setattr(encoded_shard, "read_bytes", spy)
    for first, expected in ((64, [(0, 64), (64, size)]), (size, [(0, size)]), (10**6, None)):
        asked.clear()
        monkeypatch.setattr(encoded_shard, "START_BYTES", first)
        assert EncodedShard(str(tmp_path / "x")).about == about().model_copy(
            update={"faults": {1: "it is broken"}}
        )
        assert asked == (expected or [(0, (tmp_path / "x").stat().st_size)])


def test_it_draws_what_the_pictures_would_be(tmp_path: Path) -> None:
    """The same numbers of the same generator: latents here are the pictures' own numbers."""
    (tar,) = write_shards(tmp_path, (3, 4), per_shard=9)
    of_tar = about(index=load_index(str(tar)).header.checksum)
    with EncodedWriter(encoded_name(str(tar), "n"), of_tar) as writer:
        writer.add_captions([""], torch.zeros(1, 1, 1), None)
        for count in (3, 4):
            writer.add_set(torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1), [""] * count)
    sets = EncodedSets(StoredSets(str(tmp_path)), "n")
    assert (len(sets), sets.size(1), sets.name(0)) == (2, 4, f"00000 of {tar}")
    for seed in range(10):
        read = sets.read(1, 3, np.random.default_rng(seed))
        found = sets.latents(1, 3, np.random.default_rng(seed)).latents.flatten().tolist()
        assert [f"subject 1, picture {int(number)}" for number in found] == list(read.captions)


def test_latents_of_something_else_are_refused(tmp_path: Path) -> None:
    (tar,) = write_shards(tmp_path, (1, 1), per_shard=9)
    index = load_index(str(tar)).header.checksum

    def write(rows: int, **changes: str) -> str:
        facts = about(index=index).model_copy(update=changes)
        with EncodedWriter(encoded_name(str(tar), "n"), facts) as writer:
            writer.add_captions([""], torch.zeros(1, 1, 1), None)
            for _ in range(rows):
                writer.add_set(torch.zeros(1, 1, 1, 1), [""])
        return encoded_name(str(tar), "n")

    sets, single = StoredSets(str(tmp_path)), SinglePictures(str(tmp_path))
    url = write(2)
    encoded = EncodedSets(sets, "n")
    assert len(encoded) == 2
    before = list(encoded.parts())
    assert [place for place, _ in before] == [str(tar), url]
    assert before[0] == (str(tar), index)
    encoded.check("key", "b", 32)
    with pytest.raises(
        DataError, match=f"{url} was encoded at 32 pixels, but the recipe asks for 16: .* 16 under"
    ):
        encoded.check("key", "b", 16)
    with pytest.raises(
        DataError, match=f"{url} is stale: .* text encoders of b, which are not those of other:"
    ):
        encoded.check("another", "other", 32)
    write(2, encoders="another")
    after = list(EncodedSets(sets, "n").parts())
    assert (after[0], after[1] == before[1]) == (before[0], False)
    write(2)
    with pytest.raises(DataError, match=f"{url} was encoded as sets, not as single: .* --kind single"):
        EncodedSets(single, "n")
    write(2, kind="single")
    assert len(EncodedSets(single, "n")) == 2
    stale = f"{url} is stale: {tar} has changed since; encode it by `jedi data encode` again"
    for rows, changes in ((1, {}), (2, {"index": "another"})):
        write(rows, **changes)
        with pytest.raises(DataError, match=stale):
            EncodedSets(sets, "n")


def test_recipes_say_what_can_be_encoded(tmp_path: Path) -> None:
    for kind, reason in {
        "video": "their frames are drawn anew each time",
        "multiview": "their backgrounds are drawn anew each time",
        "folders": "they are in no shards",
    }.items():
        with pytest.raises(ValidationError, match=f"cannot be encoded .*{reason}; `jedi data pack` makes"):
            READER.validate_python({"kind": kind, "place": "x", "encoded": "latents"})
    with pytest.raises(ValidationError, match="encoded"):
        READER.validate_python({"kind": "sets", "place": "x", "encoded": "../x"})
    (tmp_path / "a.jpg").touch()
    section = READER.validate_python({"kind": "sets", "place": str(tmp_path), "encoded": "latents"})
    with pytest.raises(UsageError, match="holds no shards: make them by `jedi data pack`"):
        section.open(32)
