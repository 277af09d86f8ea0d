"""Commands of README.md and docs/ run as printed, with the flags beside them that make them tiny."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Said
from tests.test_pages import ROOT, in_blocks

TINY = "--model 2x2x16 --steps 2 --batch-size 4 --eval-samples 8 "
TEXT = "--corpus text "
ROWS = TINY + TEXT + "--tokenizer bytes --context 16 "
WARM = TINY + "--task set:inputs=4,symbols=9 --context 16 "
SHORT = "--length 4"
LOOKS = TINY + "--vocab 16 --pairs 3 --ramp-steps 0 "

# For each page: commands that make what its commands read, then its commands and the flags that shrink them.
PAGES: dict[str, tuple[list[str], dict[str, str]]] = {
    "README.md": (
        [],
        {
            "generate set:inputs=6 --show 2": "",
            "warmup --task set:inputs=24 --model 2x4x64 --context 64 --steps 300 --lr 3e-3 -o warm.safetensors": TINY,
            "eval haystack --scale laptop --model 2x4x64 --steps 300 --lr 3e-3 --init none "
            "--init warm.safetensors --components attention,mlp,norms,positions": LOOKS,
        },
    ),
    "docs/index.md": ([], {"recipes list": "", "init --corpus articles.jsonl -o mine.yaml": TEXT}),
    "docs/corpora.md": (
        [],
        {
            "corpus inspect --corpus python": TEXT,
            "corpus stats --corpus python --context 256": TEXT + "--context 16",
            "tokenizer train --corpus python --vocab-size 8000 -o code-tokenizer": TEXT + "--vocab-size 280",
            "corpus build --corpus python --tokenizer code-tokenizer": TEXT,
        },
    ),
    "docs/data.md": (
        [],
        {
            "generate set:inputs=24 --samples 100k -o set.parquet": "--samples 16",
            'generate "set*0.5 + union*0.5" --tokens 10M -o mixed.jsonl': "--tokens 1k",
            'generate "shuffle(dyck:k=16)" --split validation -o val.bin': "--samples 16",
            "generate set --inputs 24 --shard 1/8 -o set-1.arrow": "--samples 16",
            "generate sorting:items=6,symbols=20 --as-text --tokenizer bytes -o sorting.jsonl": "--samples 16",
        },
    ),
    "docs/evaluation.md": (
        [f"pretrain {ROWS} -o model.safetensors", f"warmup {WARM} -o warm.safetensors"],
        {
            "eval haystack --init warm.safetensors --scale laptop": LOOKS,
            "eval perplexity model.safetensors --corpus docstrings": TEXT + "--documents 2",
            "eval perplexity model.safetensors --corpus docstrings --stride 128 --per-position at.csv": TEXT
            + "--documents 2 --stride 8",
            "eval interpret model.safetensors --against fresh --against warm.safetensors --figures heads/": SHORT,
        },
    ),
    "docs/planning.md": (
        [],
        {
            "plan recipes/paper/c4-1.3b.yaml --gpu h100 --gpus 1,8,64 --mfu 0.4": "",
            "plan --model gpt2 --context 1024 --budget 655M --batch-size 32 --gpu a100-40gb": "",
        },
    ),
    "docs/recipes.md": (
        [],
        {
            "run recipes/laptop/python.yaml --dry-run": "",
            "init --corpus articles.jsonl --text-field body --model 4x4x128 --task set --task dyck -o mine.yaml": TEXT,
        },
    ),
    "docs/reporting.md": (
        [f"pretrain {ROWS} --seed {seed} -o {arm}{seed}.safetensors" for arm in "ab" for seed in (0, 1)],
        {
            "compare cold=a0.run cold=a1.run set=b0.run set=b1.run": "",
            "compare a0.run b0.run --loss 1.7 --format latex": "--loss 9",
        },
    ),
    "docs/training.md": ([], {"warmup --task set:inputs=24 --curriculum start=2,step=2,accuracy=.99": TINY}),
    "docs/transplant.md": (
        [f"warmup {TINY} --task {task} --context 1024 -o {task[:3]}.safetensors" for task in ("set:inputs=4", "eca")],
        {
            "transplant --attention set.safetensors --mlp eca.safetensors --norms set.safetensors --positions "
            "set.safetensors --embeddings mean --embeddings-from set.safetensors -o mixed.safetensors": "",
            "transplant --attention set.safetensors --mlp eca.safetensors -o new.safetensors --dry-run": "",
            "eval haystack --init mixed.safetensors": LOOKS,
            "inspect mixed.safetensors --lineage": "",
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_run(
    page: str, proctool: Callable[..., Said], text: Path, in_process: None, tmp_path: Path
) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    before, printed = PAGES[page]
    shown = [shlex.split(line, comments=True) for line in in_blocks((ROOT / page).read_text(encoding="utf-8"))]
    for line in before:
        said = proctool(*shlex.split(line))
        assert said.code == 0, f"{line}\n{said.err}"
    for line, flags in printed.items():
        words = shlex.split(line)
        assert words in shown, f"{page} no longer has: {line}"
        said = proctool(*words, *shlex.split(flags))
        assert said.code == 0, f"{line}\n{said.err}"
        assert said.out or said.err
        output = re.search(r" -o (\S+)", line)
        assert output is None or Path(output[1]).exists() != ("--dry-run" in words)


@pytest.mark.slow
def test_the_python_example_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert "steps=300" in block
    exec(compile(block.replace("steps=300", "steps=2"), "README.md", "exec"), {})
    shown = re.search(r"print\(.*\)  # (.*)", block)
    assert shown is not None
    assert shown[1] in capsys.readouterr().out.splitlines()
