"""The model card of an exported folder, made from the lineage, with an example of use.

The card is Markdown with the front matter that the hub reads (https://huggingface.co/docs/hub/model-cards). It has only
facts that the artifact records: no dates, no paths, no claims without measurement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool import __version__
from proctool.artifact import Artifact, bare_name
from proctool.export.front_matter import NOTHING, Stated, front_matter, measured
from proctool.models.build import context_of
from proctool.transplantation.origin import component_words, read_carried
from proctool.units import counted, format_count

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from proctool.corpora.tokenizers import Tokenizer
    from proctool.models.saved import SavedModel


def write_card(
    folder: Path, name: str, saved: SavedModel, model: PreTrainedModel, tokenizer: Tokenizer | None, stated: Stated
) -> None:
    """Write `folder`/README.md for the model `name`."""
    (folder / "README.md").write_text(card(name, saved, model, tokenizer, stated), encoding="utf-8")


def card(
    name: str, saved: SavedModel, model: PreTrainedModel, tokenizer: Tokenizer | None, stated: Stated = NOTHING
) -> str:
    """The model card: front matter, description, how it was made, results, use, lineage."""
    metadata = saved.metadata
    parts = [front_matter(name, saved, stated), f"# {name}", _what(saved, model, tokenizer)]
    if steps := list(_steps(saved)):
        parts += ["## How it was made", "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))]
    if metadata.get("carried"):
        parts += ["Carried over into this model:", _carried(metadata["carried"])]
    if metrics := measured(metadata):
        rows = [[each.label, f"{each.value:.4g}"] for each in metrics]
        parts += [
            "## Results",
            "On the validation split of its last training data:",
            _table(["measure", "value"], rows),
        ]
    parts += ["## Use", _use(name, tokenizer is not None)]
    if saved.artifact is not None:
        tree = "\n".join(_tree(saved.artifact.as_parent))
        parts += ["## Lineage", f"```\n{tree}\n```", _made_with(saved.artifact)]
    return "\n\n".join(parts) + "\n"


def _what(saved: SavedModel, model: PreTrainedModel, tokenizer: Tokenizer | None) -> str:
    config = saved.config
    size = format_count(sum(parameter.numel() for parameter in model.parameters()))
    context = context_of(config)
    text = (
        f"A {config.model_type} model of {size} parameters: {counted(config.num_hidden_layers, 'layer')}, "
        f"{counted(config.num_attention_heads, 'head')}, width {config.hidden_size}, "
        f"a vocabulary of {config.vocab_size}"
    )
    text += f" and a context of {context} tokens." if context else "."
    if tokenizer is None:
        text += " It has no tokenizer: its tokens are the symbols of a procedural task, not text."
    else:
        text += f" Tokenizer: `{bare_name(tokenizer.spec)}`."
    return f"{text} Made with proctool {__version__}."


def _steps(saved: SavedModel) -> Iterator[str]:
    """The steps from the oldest ancestor to this model, one sentence each."""
    if saved.artifact is not None:
        yield from _history(saved.artifact.as_parent, is_this=True)


def _history(node: Mapping[str, Any], *, is_this: bool = False) -> Iterator[str]:
    for parent in node.get("parents") or []:
        yield from _history(parent)
    metadata = node.get("about") or {}
    result = "this model" if is_this else f"`{bare_name(node['name'])}`"
    spent = [f"{counted(metadata['tokens'], 'token')}"] if "tokens" in metadata else []
    spent += [f"{counted(metadata['steps'], 'step', exact=True)}"] if "steps" in metadata else []
    spent += [f"seed {metadata['seed']}"] if "seed" in metadata else []
    amount = f" ({', '.join(spent)})" if spent else ""
    if node.get("kind") == "data":
        yield f"Generated `{metadata.get('task')}` as {result}{amount}."
    elif "corpus" in metadata:
        yield f"Trained on the corpus `{bare_name(str(metadata['corpus']))}`{amount}: {result}."
    elif "task" in metadata:
        task = metadata["task"] if isinstance(metadata["task"], str) else " + ".join(map(str, metadata["task"]))
        yield f"Warmed up on `{task}`{amount}: {result}."
    elif isinstance(metadata.get("components"), Mapping):
        whence = ", ".join(f"{component} {words}" for component, words in component_words(metadata["components"]))
        yield f"Combined from donors ({whence}): {result}."
    elif not is_this:
        yield f"Started from {result}."


def _carried(rows: Sequence[Mapping[str, Any]]) -> str:
    return _table(
        ["component", "start", "tensors", "parameters", "why"],
        [
            [made.component, made.source, str(row.tensors), format_count(row.parameters), made.words()]
            for row in read_carried(rows)
            for made in (row.provenance,)
        ],
    )


def _use(name: str, reads_text: bool) -> str:
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    lines += [f'model = AutoModelForCausalLM.from_pretrained("{name}")']
    if reads_text:
        lines += [
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
            'prompt = tokenizer("def main", return_tensors="pt")',
            "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=20)[0]))",
        ]
    else:
        lines[0] = "from transformers import AutoModelForCausalLM"
    return "\n".join(["```python", *lines, "```"])


def _tree(node: Mapping[str, Any], before: str = "", last: bool | None = None) -> Iterator[str]:
    """The artifact and its ancestors, one line each."""
    metadata = node.get("about") or {}
    told = [
        f"{key} {bare_name(str(metadata[key]))}"
        for key in ("task", "corpus", "seed", "tokens", "steps")
        if key in metadata
    ]
    content = f" {str(node['content'])[:12]}" if node.get("content") else ""
    joint = "" if last is None else "└─ " if last else "├─ "
    yield f"{before}{joint}{bare_name(node['name'])} ({node['kind']}{content})" + (
        f" {', '.join(told)}" if told else ""
    )
    parents = node.get("parents") or []
    for number, parent in enumerate(parents, 1):
        deeper = before + ("" if last is None else "   " if last else "│  ")
        yield from _tree(parent, deeper, number == len(parents))


def _made_with(artifact: Artifact) -> str:
    made = ", ".join(f"{library} {version}" for library, version in artifact.versions.items())
    return f"SHA-256 of its weights' hashes: `{artifact.content}`. Made with {made}."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
