"""BLIP-Diffusion on tiny random weights in the real format, against transformers' own networks."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import Blip2QFormerConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel
from transformers import Blip2QFormerModel as StockQFormer

from jedi_diffusion.errors import ModelError
from jedi_diffusion.methods.blip_diffusion import BlipDiffusion
from jedi_diffusion.methods.blip_pipeline import load_blip_diffusion, subject_tokens
from jedi_diffusion.personalizer import Personalizer
from tests.helpers.small_blip_diffusion import save_blip_diffusion
from tests.helpers.small_pipelines import save_joint

SAMPLING = {"num_inference_steps": 2, "height": 32, "width": 32, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip_diffusion(tmp_path_factory.mktemp("blip"))


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    return load(folder)


def load(folder: Path, model: str = "model", dtype: torch.dtype = torch.float32) -> Any:
    pipe = load_blip_diffusion(str(folder / model), folder / "words", dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def photos(count: int) -> list[Image.Image]:
    colors = ("red", "white", "navy")
    return [Image.new("RGB", (40, 30), color) for color in colors[:count]]


def test_pictures_follow_references_and_seeds(pipe: Any) -> None:
    method: Personalizer = BlipDiffusion(pipe, SAMPLING)
    one, other = photos(2)
    two = method([one], ["a dog"], ["a robot in the snow", "a dog"], [1, 2])
    assert [each.size for each in two] == [(32, 32)] * 2
    changed = method([other], ["a dog"], ["a robot in the snow", "a dog"], [1, 2])
    assert all(not np.array_equal(a, b) for a, b in zip(two, changed, strict=True))
    alone = method([one], ["a dog"], ["a dog"], [2])
    assert np.abs(np.asarray(two[1], int) - np.asarray(alone[0], int)).max() <= 1
    both = method([one, other], ["a dog"] * 2, ["a dog"], [2])
    assert not np.array_equal(both[0], alone[0])
    named = method([one], ["a robot"], ["a dog"], [2])
    assert not np.array_equal(named[0], alone[0])


def test_several_references_are_the_mean_of_each(pipe: Any) -> None:
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = pipe.get_query_embeddings(pixels, ["dog"] * 3)
        each = [pipe.get_query_embeddings(pixels[row : row + 1], ["dog"])[0] for row in range(2)]
    assert found.shape == (3, 4, 24)
    assert torch.allclose(found, (sum(each) / 2).expand(3, -1, -1), atol=1e-5)


def test_the_prompt_is_read_with_the_subject_after_its_article(pipe: Any, monkeypatch: Any) -> None:
    seen = []
    encode = pipe.encode_prompt

    def watched(tokens: Any, prompts: Any, device: Any) -> Any:
        seen.append(prompts)
        return encode(tokens, prompts, device)

    monkeypatch.setattr(pipe, "encode_prompt", watched)
    method = BlipDiffusion(pipe, SAMPLING)
    method(photos(1), ["a dog"], ["a dog in the snow", "the beach"], [1, 2])
    assert [text.split(", a ")[0].strip() for text in seen[0]] == ["a dog in the snow", "a dog, the beach"]
    assert all(text.count(each) == 20 for text, each in zip(seen[0], ("in the snow", "beach"), strict=True))
    assert pipe.config.ctx_begin_pos == 2, "behind the start and the article"


def test_the_text_encoder_is_clips(pipe: Any) -> None:
    """Without a subject; and with one, its tokens stand where the pipeline says, seen from there on only."""
    ours = pipe.text_encoder
    stock = CLIPTextModel(ours.config).eval()
    stock.load_state_dict({n.removeprefix("text_model."): t for n, t in ours.state_dict().items()}, False)
    ids = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = ours(ids)[0]
        assert torch.allclose(plain, stock(ids).last_hidden_state, atol=1e-5)
        extra = torch.randn(2, 4, 24, generator=torch.Generator().manual_seed(1))
        mixed = ours(ids, extra, [2, 2])[0]
    assert mixed.shape == (2, 13, 24)
    assert torch.allclose(mixed[:, :2], plain[:, :2], atol=1e-5)
    assert not torch.allclose(mixed[:, 6:], plain[:, 2:], atol=1e-2)


def test_the_query_transformer_is_blip2s(pipe: Any) -> None:
    """Against CLIP's vision model and BLIP-2's query transformer, as transformers runs them today."""
    ours = pipe.qformer
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    eyes = stock_vision(ours.visual_encoder)
    config = Blip2QFormerConfig(**ours.config.qformer_config.to_dict() | {"use_qformer_text_input": True})
    stock = StockQFormer(config).eval()
    state = {name: each for name, each in ours.state_dict().items() if name.startswith("encoder.")}
    missing, unexpected = stock.load_state_dict(state, strict=False)  # embeddings are put in below
    assert {name.split(".")[0] for name in missing} <= {"layernorm", "embeddings"}
    assert not unexpected
    with torch.no_grad():
        seen = ours.visual_encoder.post_layernorm(eyes(pixels).last_hidden_state)
        words = ours.tokenizer(["dog"] * 2, return_tensors="pt").input_ids
        table, places = ours.embeddings.word_embeddings, ours.embeddings.position_embeddings
        text = table(words) + places(torch.arange(words.shape[1]))
        start = torch.cat([ours.query_tokens.expand(2, -1, -1), text], 1)
        stock.layernorm = ours.embeddings.LayerNorm
        hidden = stock(query_embeds=start, query_length=4, encoder_hidden_states=seen).last_hidden_state
        expected = ours.proj_layer(hidden[:, :4])
        assert torch.allclose(subject_tokens(ours, pixels, "dog"), expected, atol=1e-5)


def stock_vision(ours: Any) -> nn.Module:
    """CLIP's vision model with BLIP-2's weights, whose queries, keys and values are one matrix there."""
    state = {}
    for name, each in ours.state_dict().items():
        if ".qkv." in name:
            for part, piece in zip("qkv", each.chunk(3), strict=True):
                state[name.replace("qkv", f"{part}_proj")] = piece
        else:
            state[name.replace("projection", "out_proj").replace("pre_layernorm", "pre_layrnorm")] = each
    state["embeddings.class_embedding"] = state["embeddings.class_embedding"].flatten()
    state["embeddings.position_embedding.weight"] = state.pop("embeddings.position_embedding")[0]
    kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size")
    given = {name: getattr(ours.config, name) for name in (*kept, "patch_size", "layer_norm_eps")}
    stock = CLIPVisionModel(CLIPVisionConfig(**given, hidden_act="quick_gelu")).eval()
    missing, unexpected = stock.load_state_dict(state, strict=False)
    assert set(missing) <= {"embeddings.position_ids"}
    assert not unexpected
    return stock


def test_weights_come_from_the_files_in_any_precision(folder: Path, pipe: Any) -> None:
    low = load(folder, dtype=torch.bfloat16)
    made = BlipDiffusion(low, SAMPLING)(photos(1), ["a dog"], ["a dog"], [1])
    assert made[0].size == (32, 32)
    for part in ("qformer", "text_encoder", "unet", "vae"):
        exact, rounded = (getattr(each, part).state_dict() for each in (pipe, low))
        assert all(torch.equal(exact[name].to(each.dtype), each) for name, each in rounded.items())


def test_other_models_and_damaged_ones_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a JeDiPipeline, not a BlipDiffusionPipeline"):
        load_blip_diffusion(str(save_joint(tmp_path / "joint")), folder / "words", torch.float32)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_blip_diffusion(str(folder / "model"), tmp_path / "nowhere", torch.float32)
    home = shutil.copytree(folder, tmp_path / "copy")
    config = home / "model" / "qformer" / "config.json"
    content = json.loads(config.read_text())
    content["qformer_config"]["vocab_size"] += 1
    config.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="no tokenizer of 10 words, marks included, but one of 9"):
        load(home)
    content["qformer_config"] |= {"vocab_size": 9, "num_hidden_layers": 3}
    config.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"does not fit the model: tensors .* missing"):
        load(home)
    weights = home / "model" / "qformer" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(ModelError, match="is a pickle"):
        load(home)
