"""After a full transplant, a model of another project computes its donor's logits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import proctool
from proctool.errors import Notice
from proctool.models.build import build_model, config_of
from proctool.models.saved import save_model
from tests.foreign import litgpt, nanochat, nanogpt, torchtitan

VOCAB, CONTEXT = 23, 16
ALL = ("attention", "mlp", "norms", "positions")


def shaken(model: nn.Module, seed: int = 1) -> nn.Module:
    """No two tensors alike, none constant, attention far from uniform."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.25 * torch.randn(parameter.shape, generator=random))
    return model.eval()


def source(family: str, **options: Any) -> nn.Module:
    """A tiny model of transformers with grouped heads where the family has them."""
    values = {
        "vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "num_hidden_layers": 2, "num_attention_heads": 4,
        "hidden_size": 32, "intermediate_size": 40, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    if family in ("gpt2", "gpt_neox"):
        values["intermediate_size"] = 128
    else:
        values["num_key_value_heads"] = 2
    if family == "gpt2":
        values = {**values, "n_inner": None, "activation_function": "gelu"}
    return shaken(build_model(config_of(family, {**values, **options}), 0))


def lit_llama(**more: Any) -> nn.Module:
    return litgpt.GPT(
        litgpt.Config(
            n_embd=32, n_head=4, n_query_groups=2, norm_class_name="RMSNorm", norm_eps=1e-6, parallel_residual=False,
            rotary_percentage=1.0, intermediate_size=40, bias=False, mlp_class_name="LLaMAMLP", padding_multiple=16,
            **more,
        )
    )  # fmt: skip


def titan(kind: str, **more: Any) -> nn.Module:
    sizes = {"dim": 32, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-6, **more}
    if kind == "0.2":
        return torchtitan.Llama(torchtitan.ModelArgs(ffn_dim_multiplier=0.4765, **sizes), kind)
    return torchtitan.Llama(torchtitan.Sizes(hidden_dim=40, **sizes), kind)


def later_nanochat(seed: int) -> nn.Module:
    return shaken(nanochat.GPT(nanochat.GPTConfig(n_head=4, n_kv_head=2)), seed)


# The donor, and the model that it is carried into.
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "nanogpt": (
        lambda: source("gpt2"),
        lambda: nanogpt.GPT(nanogpt.GPTConfig(n_embd=32, n_head=4, vocab_size=VOCAB)),
    ),
    "nanogpt, padded": (
        lambda: source("gpt2"),
        lambda: nanogpt.GPT(nanogpt.GPTConfig(n_embd=32, n_head=4, vocab_size=64)),
    ),
    "litgpt, Pythia's kind": (
        lambda: source("gpt_neox"),
        lambda: litgpt.GPT(litgpt.Config(n_embd=32, n_head=4, padding_multiple=16)),
    ),
    "litgpt, Llama's kind": (lambda: source("llama"), lit_llama),
    "litgpt, tied donor": (lambda: source("llama", tie_word_embeddings=True), lit_llama),
    "litgpt, biased projections": (lambda: source("qwen2"), lambda: lit_llama(attn_bias=True)),
    "litgpt, normed heads": (lambda: source("qwen3", head_dim=8), lambda: lit_llama(norm_qk=True)),
    "litgpt, fused in the donor": (lambda: source("phi3", rms_norm_eps=1e-6), lit_llama),
    "torchtitan-0.2": (lambda: source("llama"), lambda: titan("0.2")),
    "torchtitan, split": (lambda: source("llama"), lambda: titan("split")),
    "torchtitan, fused": (lambda: source("llama"), lambda: titan("fused")),
    "torchtitan, tied": (
        lambda: source("llama", tie_word_embeddings=True),
        lambda: titan("fused", enable_weight_tying=True),
    ),
    "torchtitan to litgpt": (lambda: shaken(titan("fused")), lit_llama),
    "nanochat as it began": (
        lambda: source("nanochat", intermediate_size=128),
        lambda: nanochat.GPT(nanochat.GPTConfig(n_head=4, n_kv_head=2), is_first=True),
    ),
    "nanochat": (lambda: later_nanochat(1), lambda: later_nanochat(2)),
    "nanogpt to gpt2": (
        lambda: shaken(nanogpt.GPT(nanogpt.GPTConfig(n_embd=32, n_head=4, vocab_size=VOCAB))),
        lambda: source("gpt2"),
    ),
    "torchtitan to llama": (lambda: shaken(titan("fused")), lambda: source("llama")),
}  # fmt: skip


def logits(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        made = model.eval()(tokens)
    return getattr(made, "logits", made)[..., :VOCAB]


TOKENS = torch.randint(VOCAB, (3, 12), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_donors(case: str) -> None:
    make_donor, make_target = CASES[case]
    donor, target = make_donor(), shaken(make_target(), 7)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=Notice)
        warnings.filterwarnings("ignore", ".*are padding", Notice)
        components = (*ALL, "mixer") if case == "nanochat" else ALL
        origins = proctool.transplant_into(target, donor, components, embeddings="copy")
    wanted, found = logits(donor, TOKENS), logits(target, TOKENS)
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert [origin.tensor for origin in origins] == [name for name, _ in target.named_parameters()]
    assert "fresh" not in {origin.source for origin in origins}


def test_a_file_is_as_good_as_the_model_in_it(tmp_path: Path) -> None:
    donor, target = source("llama"), titan("fused")
    save_model(tmp_path / "donor.safetensors", donor, {})
    donor.save_pretrained(tmp_path / "folder")
    for path in (tmp_path / "donor.safetensors", str(tmp_path / "folder")):
        target = titan("fused")
        proctool.transplant_into(target, path, ALL, embeddings="copy")
        torch.testing.assert_close(logits(target, TOKENS), logits(donor, TOKENS), atol=1e-5, rtol=1e-5)


class Compiled(nn.Module):
    """Holds a module where torch.compile's wrapper does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module


def test_compiled_modules_are_unwrapped() -> None:
    donor, target = source("llama"), titan("split")
    proctool.transplant_into(Compiled(target), Compiled(donor), ALL, embeddings="copy")
    torch.testing.assert_close(logits(target, TOKENS), logits(donor, TOKENS), atol=1e-5, rtol=1e-5)


def test_a_model_of_transformers_takes_its_own_family() -> None:
    donor, target = source("llama"), shaken(source("llama"), 4)
    proctool.transplant_into(target, donor, ["attention"], layers=0)
    given = dict(donor.named_parameters())
    for name, value in target.named_parameters():
        assert torch.equal(value, given[name]) == ("layers.0.self_attn" in name), name
