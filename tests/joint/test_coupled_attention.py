"""Coupled self-attention against the stock UNet and against the supplement's own form.

Letters: I pictures; L tokens a picture; H heads; D features a head; C = H * D.
"""

import logging

import pytest
import torch
import torch.nn.functional as F

from jedi_diffusion.backbones.unet import install_coupling, remove_coupling
from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint import attention
from jedi_diffusion.joint.attention import SetReads, coupled_attention
from tests.helpers.small_models import (
    SD14_CONFIG,
    random_batch,
    random_unet,
    small_sd14_unet,
    small_sdxl_unet,
    tiny_unet,
)

BUILDERS = {"sd14": small_sd14_unet, "sdxl": small_sdxl_unet}


@pytest.fixture(params=BUILDERS.values(), ids=BUILDERS.keys())
def build(request):
    return request.param


def run(unet, batch, timestep=10, **coupling):
    added = None
    if "pooled_text" in batch.conditions:
        added = {"text_embeds": batch.conditions["pooled_text"], "time_ids": batch.conditions["time_ids"]}
    kwargs = {"cross_attention_kwargs": {"reads": SetReads(**coupling)}} if coupling else {}
    return unet(batch.latents, timestep, batch.text, added_cond_kwargs=added, return_dict=False, **kwargs)[0]


def supplement_attention(attn, x, ng):
    """The paper's supplement: reshape, ordinary attention, reshape back."""
    b, l, c = x.shape  # noqa: E741
    x = x.view(-1, ng * l, c)
    heads = (
        layer(x).view(-1, ng * l, attn.heads, c // attn.heads).transpose(1, 2)
        for layer in (attn.to_q, attn.to_k, attn.to_v)
    )
    out = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(-1, ng * l, c)
    return attn.to_out[0](out).view(b, l, c)


@torch.no_grad()
def test_sets_of_one_equal_the_stock_unet_exactly(build):
    stock, joint = build(), install_coupling(build())
    batch = random_batch(stock, (1, 1, 1))
    want = run(stock, batch)
    assert torch.equal(run(joint, batch), want)
    assert torch.equal(run(joint, batch, set_sizes=(1, 1, 1)), want)


@torch.no_grad()
def test_a_set_of_one_beside_larger_sets_equals_the_stock_unet(build):
    stock, joint = build(), install_coupling(build())
    batch = random_batch(stock, (2, 1, 3))
    torch.testing.assert_close(
        run(joint, batch, set_sizes=(2, 1, 3))[2], run(stock, batch)[2], atol=1e-5, rtol=0
    )


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_uniform_sets_equal_the_supplement(size):
    unet = install_coupling(small_sd14_unet())
    attn = unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1
    x = torch.randn(6, 16, 64, generator=torch.Generator().manual_seed(0))
    got = attn(x, reads=SetReads((size,) * (6 // size)))
    torch.testing.assert_close(got, supplement_attention(attn, x, size), atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_whole_unet_equals_one_with_the_supplements_attention(monkeypatch):
    joint, plain = install_coupling(small_sd14_unet()), small_sd14_unet()
    batch = random_batch(joint, (3, 3))
    want = run(joint, batch, set_sizes=(3, 3))
    for name, module in plain.named_modules():
        if name.endswith("attn1"):
            forward = lambda x, attn=module, **_: supplement_attention(attn, x, 3)  # noqa: E731
            monkeypatch.setattr(module, "forward", forward)
    torch.testing.assert_close(run(plain, batch), want, atol=1e-5, rtol=0)


def test_one_attention_call_for_each_distinct_size(monkeypatch):
    calls = []
    attention = F.scaled_dot_product_attention

    def counted(query, key, value, **kwargs):
        calls.append((query.shape[0], query.shape[2], key.shape[2]))
        return attention(query, key, value, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    q, k, v = torch.randn(3, 10, 5, 2, 4).unbind()
    pair = (torch.randn(2, 5, 2, 4), torch.randn(2, 5, 2, 4))
    coupled_attention(q, k, v, (3, 1, 3, 1, 2))
    assert sorted(calls) == [(1, 10, 10), (2, 5, 5), (2, 15, 15)]
    calls.clear()
    coupled_attention(q, k, v, (2, 2, 2, 2, 2), [pair, None, pair, None, pair])
    assert sorted(calls) == [(2, 10, 10), (3, 10, 20)]


def test_mixed_sets_have_the_gradients_of_sets_one_by_one():
    set_sizes = (2, 1, 2, 3)
    values = torch.randn(3, 8, 5, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(8, 5, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together, alone = values.clone().requires_grad_(), values.clone().requires_grad_()
    (coupled_attention(*together, set_sizes) * weight).sum().backward()
    pieces = [part.split(set_sizes) for part in alone]
    each = [coupled_attention(*parts, (parts[0].shape[0],)) for parts in zip(*pieces, strict=True)]
    (torch.cat(each) * weight).sum().backward()
    torch.testing.assert_close(together.grad, alone.grad)


def test_nothing_is_logged_about_unexpected_arguments(build, caplog):
    unet = install_coupling(build())
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)
    try:
        run(unet, random_batch(unet, (2,)), set_sizes=(2,))
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records


@torch.no_grad()
def test_cross_attention_stays_per_picture(build):
    """Without self-attention's output, pictures of one set cannot reach each other."""
    unet = install_coupling(build())
    for name, module in unet.named_modules():
        if name.endswith("attn1"):
            module.to_out[0].weight.zero_()
    batch = random_batch(unet, (3,))
    before = run(unet, batch, set_sizes=(3,))
    batch.text[0] += 1
    after = run(unet, batch, set_sizes=(3,))
    assert torch.equal(before[1:], after[1:])
    assert not torch.equal(before[0], after[0])


@torch.no_grad()
def test_bfloat16(build):
    unet = install_coupling(build().to(torch.bfloat16))
    batch = random_batch(unet, (2, 1)).to(torch.bfloat16)
    got = run(unet, batch, set_sizes=(2, 1))
    want = run(unet.float(), batch.to(torch.float32), set_sizes=(2, 1))
    assert got.dtype == torch.bfloat16
    assert (got.float() - want).abs().mean() < 0.03 * want.std()


def test_gradient_checkpointing_gives_the_same_gradients(build):
    gradients = []
    for checkpointing in (False, True):
        unet = install_coupling(build()).train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        run(unet, random_batch(unet, (2, 1)), set_sizes=(2, 1)).square().mean().backward()
        gradients.append({name: p.grad for name, p in unet.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1])


def test_lora_layers_work_and_train():
    from peft import LoraConfig

    unet = install_coupling(small_sd14_unet())
    batch = random_batch(unet, (2, 1))
    with torch.no_grad():
        before = run(unet, batch, set_sizes=(2, 1))
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    with torch.no_grad():
        assert torch.equal(run(unet, batch, set_sizes=(2, 1)), before)  # LoRA's B starts at zero
    run(unet, batch, set_sizes=(2, 1)).square().mean().backward()
    trained = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    assert all("lora" in name for name in trained)
    coupled = [p.grad for name, p in trained.items() if "attn1" in name and "lora_B" in name]
    assert coupled
    assert all(gradient.abs().sum() > 0 for gradient in coupled)
    with torch.no_grad():
        for name, p in trained.items():
            if "attn1" in name:
                p.add_(0.1)
        assert not torch.allclose(run(unet, batch, set_sizes=(2, 1)), before, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_compiled_equals_eager():
    torch.compiler.reset()
    unet = install_coupling(tiny_unet())
    batch = random_batch(unet, (2, 1, 2))
    want = run(unet, batch, set_sizes=(2, 1, 2))
    compiled = torch.compile(unet, fullgraph=True)
    torch.testing.assert_close(run(compiled, batch, set_sizes=(2, 1, 2)), want, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_graph_has_no_breaks():
    """What torch.compile needs; the eager backend spares the minutes of code generation."""
    torch.compiler.reset()
    unet = install_coupling(tiny_unet())
    batch = random_batch(unet, (2, 1))
    compiled = torch.compile(unet, backend="eager", fullgraph=True)
    want = run(unet, batch, set_sizes=(2, 1))
    torch.testing.assert_close(run(compiled, batch, set_sizes=(2, 1)), want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_removal_restores_the_stock_processors(build):
    unet = build()
    before = dict(unet.attn_processors)
    batch = random_batch(unet, (2,))
    want = run(unet, batch)
    install_coupling(install_coupling(unet))
    assert not torch.equal(run(unet, batch, set_sizes=(2,)), want)
    remove_coupling(unet)
    assert all(unet.attn_processors[name] is processor for name, processor in before.items())
    assert torch.equal(run(unet, batch), want)


def test_what_is_private_to_a_picture_is_read_by_it_alone():
    """Against one plain call a picture: 4 tokens a picture and 3 of its own, with and without a cache."""
    sizes, generator = (2, 1, 2), torch.Generator().manual_seed(0)
    query, key, value, *private = (
        torch.randn(5, tokens, 2, 8, generator=generator) for tokens in (4 + 3, 4, 4, 3, 3)
    )
    read = torch.randn(2, 3, 4, 2, 8, generator=generator).unbind()
    references = [read, None, None]
    got = coupled_attention(query, key, value, sizes, references, private=tuple(private))
    start = 0
    for size, cached in zip(sizes, references, strict=True):
        for row in range(start, start + size):
            keys, values = (
                torch.cat([*(cached[part].unbind() if cached else ()), *each[start : start + size], own[row]])
                for part, (each, own) in enumerate(zip((key, value), private, strict=True))
            )
            heads = (each.transpose(0, 1) for each in (query[row], keys, values))
            want = F.scaled_dot_product_attention(*heads).transpose(0, 1)
            torch.testing.assert_close(got[row], want)
        start += size


@pytest.mark.parametrize("has_private", [False, True])
def test_the_implementation_that_is_asked_for_computes_attention(monkeypatch, has_private):
    used, real = [], attention.dispatch_attention_fn

    def spy(*args, backend=None, **options):
        used.append(backend)
        return real(*args, backend=backend, **options)

    monkeypatch.setattr(attention, "dispatch_attention_fn", spy)
    query, key, value, *own = torch.randn(5, 3, 4, 2, 8, generator=torch.Generator().manual_seed(0))
    private = (own[0], own[1]) if has_private else None
    asked = torch.cat([query, query], dim=1) if has_private else query
    coupled_attention(asked, key, value, (2, 1), backend="_native_math", private=private)
    assert used == ["_native_math"] * 2


@pytest.mark.parametrize("set_sizes", [(2,), (4,), (3, 0), (4, -1), ()])
def test_sizes_that_do_not_fit_are_refused(set_sizes):
    unet = install_coupling(small_sd14_unet())
    with pytest.raises(UsageError, match="do not add up to the 3 pictures"):
        run(unet, random_batch(unet, (3,)), set_sizes=set_sizes)


def test_attention_masks_are_refused():
    unet = install_coupling(small_sd14_unet())
    batch = random_batch(unet, (1,))
    with pytest.raises(UsageError, match="no attention mask"):
        unet(batch.latents, 1, batch.text, attention_mask=torch.ones(1, 64))


@pytest.mark.slow
@torch.no_grad()
def test_full_size_sd14():
    """860M random parameters, 32x32 latents: sets of one are exact, sets are apart, a set meets."""
    unet = random_unet(SD14_CONFIG)
    assert 859e6 < sum(p.numel() for p in unet.parameters()) < 861e6
    batch = random_batch(unet, (2, 1), size=32)
    want = run(unet, batch)
    install_coupling(unet)
    assert torch.equal(run(unet, batch, set_sizes=(1, 1, 1)), want)
    got = run(unet, batch, set_sizes=(2, 1))
    torch.testing.assert_close(got[2], want[2], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(got[:2], want[:2], atol=1e-4)
    batch.latents[2] += 1
    assert torch.equal(run(unet, batch, set_sizes=(2, 1))[:2], got[:2])
