"""Hugging Face folders as they come from others: a tiny Llama whose tokenizer has <s>, </s>, <pad> and <unk>."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

VOCABULARY = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3} | {
    character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 4)
}
BOS, EOS, PAD = 1, 2, 3
NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def template(single: str) -> Any:
    return processors.TemplateProcessing(single=single, special_tokens=[("<s>", BOS), ("</s>", EOS)])


@dataclass(frozen=True)
class Kind:
    """A tokenizer as some family has it, and how a text begins under it."""

    first: int
    """What the first token of a text is predicted from."""
    added: tuple[int, ...] = ()
    post: Any = None
    without: tuple[str, ...] = ()
    named: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    """What is written into tokenizer_config.json beside it."""


KINDS = {
    "llama": Kind(BOS, (BOS,), template("<s> $A")),
    "llama 3": Kind(BOS, (BOS,), processors.Sequence([processors.ByteLevel(trim_offsets=False), template("<s> $A")])),
    "appends eos": Kind(BOS, (BOS,), template("<s> $A </s>")),
    "bos not put in front": Kind(BOS),
    # Beside a tokenizer.json transformers does not listen to these: its post-processor alone decides.
    "told to put it in front": Kind(BOS, settings={"add_bos_token": True}),
    "told not to": Kind(BOS, (BOS,), template("<s> $A"), settings={"add_bos_token": False, "add_eos_token": False}),
    "bos is eos": Kind(EOS, named={"bos_token": "</s>"}),
    "gpt2": Kind(EOS, (), processors.ByteLevel(trim_offsets=False), named={"bos_token": "</s>"}),
    "no bos": Kind(EOS, without=("bos_token",)),
    "neither": Kind(EOS, without=("bos_token", "eos_token")),
}


def save_tokenizer(folder: Path, kind: Kind = KINDS["llama"]) -> Path:
    backend = Tokenizer(models.BPE(vocab=VOCABULARY, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in list(VOCABULARY)[:4]])
    if kind.post is not None:
        backend.post_processor = kind.post
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    named = {name: token for name, token in {**NAMED, **kind.named}.items() if name not in kind.without}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, **named, **kind.settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    return folder


def save_llama(folder: Path, kind: Kind = KINDS["llama"], **settings: Any) -> Path:
    """A folder as transformers saves it, with weights far from fresh ones."""
    save_tokenizer(folder, kind)
    values = {
        "vocab_size": len(VOCABULARY), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": BOS,
        "eos_token_id": EOS, "pad_token_id": PAD, "tie_word_embeddings": False,
    }  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**values, **settings}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    return folder
