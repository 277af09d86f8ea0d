"""Examples at the end of each command's help. Tests parse all of them."""

from __future__ import annotations

from collections.abc import Sequence

EXAMPLES: dict[str, Sequence[str]] = {
    "": (
        "proctool generate dyck --show 3",
        "proctool warmup --task set:inputs=24 -o warm.safetensors",
        "proctool pretrain --corpus python --init warm.safetensors",
        "proctool run demo",
    ),
    "generate": (
        "proctool generate dyck --k 16 --length 128 --samples 10k -o dyck.safetensors",
        'proctool generate "set*0.5 + union*0.5" --tokens 2M -o both.parquet',
    ),
    "warmup": (
        "proctool warmup --task set:inputs=24 --steps 600 -o warm.safetensors",
        "proctool warmup --task dyck:k=16,length=128 --model 2x4x16 --dry-run",
        "proctool warmup --task dyck --model 2x4x16 --accept haystack",
    ),
    "transplant": ("proctool transplant --attention set.safetensors --mlp eca.safetensors -o mixed.safetensors",),
    "pretrain": (
        "proctool pretrain --corpus python --model 4x4x64 -o cold.safetensors",
        "proctool pretrain --corpus texts/ --init warm.safetensors",
        "proctool pretrain --corpus python --mix set:inputs=24=0.01",
    ),
    "eval": (
        "proctool eval perplexity model.safetensors --corpus python",
        "proctool eval haystack --init warm.safetensors --seeds 0,1,2 --dry-run",
    ),
    "eval perplexity": ("proctool eval perplexity model.safetensors --corpus python --split test",),
    "eval mathematics": ("proctool eval mathematics model.safetensors --modules algebra",),
    "eval blimp": ("proctool eval blimp model.safetensors --data blimp/",),
    "eval harness": (
        "proctool eval harness model.safetensors --tasks arc_easy,piqa --limit 100",
        "proctool eval harness model.safetensors --tasks piqa -o results.jsonl",
    ),
    "eval interpret": (
        "proctool eval interpret model.safetensors --against fresh --figures heads/",
        "proctool eval interpret model.safetensors --task haystack --ablate zero",
    ),
    "eval finetune": ("proctool eval finetune sst2 --init model.safetensors --data glue/",),
    "sample": ('proctool sample model.safetensors --prompt "def main(" --tokens 50',),
    "run": ("proctool run demo", "proctool run mine.yaml --dry-run", "proctool run mine.yaml --jobs 2"),
    "recipes": ("proctool recipes list", "proctool recipes copy laptop/python -o mine.yaml"),
    "recipes list": ("proctool recipes list --json",),
    "recipes show": ("proctool recipes show laptop/python",),
    "recipes copy": ("proctool recipes copy laptop/python -o mine.yaml",),
    "init": ("proctool init --corpus articles.jsonl --model 4x4x128 --task set --task dyck",),
    "search": (
        "proctool search --corpus articles.jsonl --model gpt2 --hours 2",
        "proctool search --corpus python --model 4x4x64 --task set --task dyck:k=16 --dry-run",
    ),
    "plan": (
        "proctool plan paper/c4 --gpu h100 --gpus 8",
        "proctool plan --model gpt2 --steps 10k --batch-size 32 --gpu h100",
    ),
    "compare": ("proctool compare cold.run warm.run --html compared.html",),
    "choose": ("proctool choose runs/demo --arm set -o chosen.safetensors",),
    "report": ("proctool report runs/demo --format markdown",),
    "corpus": ("proctool corpus build --corpus texts/ --tokenizer bytes",),
    "corpus build": ("proctool corpus build --corpus texts/ --tokenizer bytes --workers 4",),
    "corpus merge": ("proctool corpus merge --corpus texts/",),
    "corpus stats": ("proctool corpus stats --corpus python",),
    "corpus inspect": ("proctool corpus inspect --corpus python --show 2",),
    "tokenizer": ("proctool tokenizer train --corpus python --vocab-size 8000",),
    "tokenizer train": ("proctool tokenizer train --corpus python --vocab-size 8000 -o bpe/",),
    "doctor": ("proctool doctor", "proctool doctor --folder runs --json"),
    "inspect": ("proctool inspect model.safetensors --lineage",),
    "export": (
        "proctool export model.safetensors hf/",
        "proctool export model.safetensors model.pt.safetensors --format nanogpt",
    ),
}


def examples_of(command_path: str) -> Sequence[str]:
    """The examples of `proctool COMMAND ...`; tasks and diagnostics share theirs."""
    path = " ".join(command_path.split()[1:])
    if path in EXAMPLES:
        return EXAMPLES[path]
    group, _, name = path.partition(" ")
    if group == "generate":
        return (f"proctool generate {name} --show 3", f"proctool generate {name} --samples 10k -o {name}.safetensors")
    if group == "eval":
        return (
            f"proctool eval {name} --model diagnostic --seeds 0,1,2",
            f"proctool eval {name} --init warm.safetensors --scale laptop",
            f"proctool eval {name} --init warm.safetensors --components attention",
        )
    return ()
