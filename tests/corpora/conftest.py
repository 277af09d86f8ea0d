import gzip
import json
import random

import pytest

from proctool.corpora import documents


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCTOOL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def small_blocks(monkeypatch):
    """Shards of about 2 kB, so that small corpora have many."""
    monkeypatch.setattr(documents, "SMALLEST_BLOCK", 2048)


WORDS = "the of and in to was he is for it with as his on be at by had not are but from or have they é ∑"


def prose(seed, words=40):
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS.split()) for _ in range(words)) + f" {seed}\n"


@pytest.fixture
def texts():
    return [prose(seed) for seed in range(120)]


@pytest.fixture
def jsonl(tmp_path, texts):
    path = tmp_path / "data" / "corpus.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def write_gz(path, rows):
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def math_tree(root, modules=3, each=20):
    """The official layout; interpolate repeats some of train."""
    for level in ("train-easy", "train-medium", "train-hard", "interpolate"):
        (root / level).mkdir(parents=True)
        for module in range(modules):
            low = 0 if level in ("train-easy", "interpolate") else 1000 * len(level)
            lines = [f"What is {n + low} + {module}?\n{n + low + module}\n" for n in range(each)]
            (root / level / f"arithmetic__m{module}.txt").write_text("".join(lines))
    return root
