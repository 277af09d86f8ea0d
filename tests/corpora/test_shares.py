import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from proctool.corpora import load_tokenizer, open_corpus, open_store
from proctool.corpora.shares import build_share, merge, parse_share
from proctool.errors import ArtifactError, CorpusError
from tests.corpora.conftest import math_tree, prose

BYTES = load_tokenizer("bytes")
pytestmark = pytest.mark.usefixtures("small_blocks")


@pytest.mark.parametrize("apart", [False, True])
def test_shares_of_many_jobs_make_the_same_store(jsonl, tmp_path, apart):
    corpus = open_corpus(str(jsonl))
    alone = open_store(corpus, BYTES, 64, cache_dir=tmp_path / "alone")
    caches = [tmp_path / (f"job{number}" if apart else "together") for number in (1, 2, 3)]
    for number, cache in zip((1, 2, 3), caches, strict=True):
        build_share(corpus, BYTES, (number, 3), cache_dir=cache)
    merge(corpus, BYTES, caches if apart else [], cache_dir=tmp_path / "together")
    joined = open_store(
        corpus, BYTES, 64, cache_dir=tmp_path / "together", progress=lambda progress: pytest.fail("built again")
    )
    assert joined.content == alone.content
    rows = np.arange(len(alone.split()))
    assert np.array_equal(joined.split().read(rows).tokens, alone.split().read(rows).tokens)


def test_a_share_that_is_missing_is_named(jsonl, tmp_path):
    corpus = open_corpus(str(jsonl))
    build_share(corpus, BYTES, (1, 2), cache_dir=tmp_path)
    with pytest.raises(CorpusError, match=r"part 2 of \d+ .* has not been built; run the job with share"):
        merge(corpus, BYTES, [], cache_dir=tmp_path)


def test_a_damaged_share_is_named(jsonl, tmp_path):
    corpus = open_corpus(str(jsonl))
    build_share(corpus, BYTES, (1, 1), cache_dir=tmp_path / "job")
    path = next((tmp_path / "job").rglob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{path.name}: tensor .* is damaged"):
        merge(corpus, BYTES, [tmp_path / "job"], cache_dir=tmp_path / "here")


def test_a_corpus_with_its_own_validation_split_is_shared_too(tmp_path):
    corpus = open_corpus(f"mathematics:{math_tree(tmp_path / 'tree')}")
    build_share(corpus, BYTES, (1, 1), cache_dir=tmp_path)
    merge(corpus, BYTES, [], cache_dir=tmp_path)
    assert open_store(corpus, BYTES, 64, cache_dir=tmp_path).count("validation", "documents") == 60


@pytest.mark.parametrize("written", ["0/3", "4/3", "3", "a/b", "1/"])
def test_shares_are_written_i_of_n(written):
    assert parse_share("2/3") == (2, 3)
    with pytest.raises(CorpusError, match="write i/n"):
        parse_share(written)


SCRIPT = """
import sys
from proctool.corpora import documents, load_tokenizer, open_corpus, open_store
documents.SMALLEST_BLOCK = 100_000
workers = int(sys.argv[3])
store = open_store(open_corpus(sys.argv[1]), load_tokenizer("bytes"), 64, cache_dir=sys.argv[2], workers=workers)
print(store.content)
"""


@pytest.fixture
def larger(tmp_path):
    path = tmp_path / "larger.jsonl"
    path.write_text("".join(f'{{"text": "{prose(seed, 60).strip()}"}}\n' for seed in range(20_000)), encoding="utf-8")
    return path


def start(path, cache, workers):
    command = [sys.executable, "-c", SCRIPT, str(path), str(cache), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_builds_go_on_to_the_identical_hash(larger, tmp_path, workers):
    whole = finish(start(larger, tmp_path / "whole", 1))
    broken, kills = tmp_path / "broken", 0
    for _ in range(2):
        before = len(list(broken.rglob("*.safetensors")))
        process = start(larger, broken, workers)
        while process.poll() is None and len(list(broken.rglob("*.safetensors"))) < before + 6:
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills
    assert finish(start(larger, broken, workers)) == whole


@pytest.mark.slow
def test_two_processes_open_one_store_at_once(larger, tmp_path):
    running = [start(larger, tmp_path / "shared", 1) for _ in range(3)]
    assert len({finish(process) for process in running}) == 1
    shards = list((tmp_path / "shared").rglob("*.safetensors"))
    assert len(shards) == len({path.stat().st_ino for path in shards})
