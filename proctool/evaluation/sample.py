"""Text that a model generates after a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from proctool.errors import OptionError
from proctool.evaluation.eval_model import EvalModel


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Print what a model writes after a prompt."""

    prompt: str = ""
    """Text to continue (default: start a new text)."""
    tokens: int = 100
    """Maximum number of new tokens; end-of-text stops earlier."""
    samples: int = 1
    """Texts to generate."""
    temperature: float = 0.8
    """Sampling temperature; 0 is greedy decoding."""
    top_k: int = 0
    """Sample from the k most probable tokens; 0: from all."""
    top_p: float = 1.0
    """Sample from the most probable tokens up to this probability."""
    seed: int = 0
    """Seed for sampling."""
    tokenizer: str | None = None
    """Tokenizer, a path or a name such as bytes (default: the model's)."""

    def __post_init__(self) -> None:
        for name, least in (("tokens", 1), ("samples", 1), ("top_k", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} = {getattr(self, name)}: must be at least {least}")
        if self.temperature < 0:
            raise OptionError(f"temperature = {self.temperature}: must be at least 0")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p = {self.top_p}: must be above 0 and at most 1")


def sample(subject: EvalModel, options: SampleOptions) -> dict[str, Any]:
    """`samples` continuations of the prompt, as text.

    Raises OptionError if prompt and new tokens exceed the context, or if the tokenizer does not know a character of
    the prompt.
    """
    import torch
    from transformers import GenerationConfig

    written = subject.tokenizer.encode_batch([options.prompt])[0].tolist()
    ids = [*subject.beginning.first, *written]
    if subject.context is not None and len(ids) + options.tokens > subject.context:
        raise OptionError(
            f"tokens = {options.tokens}: the prompt has {len(ids)} tokens and the context is {subject.context}; "
            f"use at most {max(0, subject.context - len(ids))}"
        )
    model, eos = subject.model(), subject.tokenizer.eos_id
    torch.manual_seed(options.seed)
    drawing: dict[str, Any] = {"do_sample": False}
    if options.temperature > 0:
        drawing = {
            "do_sample": True,
            "temperature": options.temperature,
            "top_k": options.top_k,
            "top_p": options.top_p,
        }
    made = model.generate(
        torch.tensor([ids], device=model.device).expand(options.samples, -1),
        generation_config=GenerationConfig(
            max_new_tokens=options.tokens, eos_token_id=eos, pad_token_id=eos, bos_token_id=None, **drawing
        ),
    )
    texts = []
    for row in made[:, len(ids) :].tolist():
        kept = row[: row.index(eos)] if eos in row else row
        texts.append({"text": subject.tokenizer.decode(kept), "tokens": len(kept), "ended": eos in row})
    return {"event": "sample", **subject.metadata(), "prompt": options.prompt, "seed": options.seed, "samples": texts}
