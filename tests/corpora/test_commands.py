import json
import subprocess
import sys

from tests.corpora.conftest import write_gz


def test_a_corpus_is_built_by_shares_merged_and_inspected(proctool, jsonl):
    for share in ("1/2", "2/2"):
        assert proctool("corpus", "build", "--corpus", jsonl, "--shard", share).code == 0
    assert json.loads(proctool("corpus", "merge", "--corpus", jsonl, "--json").out)["shards"] == 1
    built = json.loads(proctool("corpus", "build", "--corpus", jsonl, "--context", 64, "--json").out)
    assert built["train"]["documents"] + built["validation"]["documents"] == 120
    said = proctool("corpus", "inspect", "--corpus", jsonl, "--verify", "--show", 1)
    assert said.code == 0
    assert "all hashes match" in said.err
    assert said.out


def test_dry_runs_write_nothing(proctool, jsonl, tmp_path):
    said = proctool("corpus", "build", "--corpus", jsonl, "--dry-run", "--json")
    assert json.loads(said.out)["splits"] == ["train", "validation"]
    assert not (tmp_path / "cache" / "tokens").exists()


def test_a_tokenizer_is_trained_and_used(proctool, jsonl, tmp_path):
    folder = tmp_path / "made"
    said = proctool("tokenizer", "train", "--corpus", jsonl, "--vocab-size", 280, "-o", folder, "--json")
    assert json.loads(said.out)["vocab_size"] == 280
    built = proctool("corpus", "build", "--corpus", jsonl, "--tokenizer", folder, "--context", 64, "--json")
    assert json.loads(built.out)["rows"] > 0


def test_mistakes_are_one_line_that_names_the_file(proctool, tmp_path):
    path = write_gz(tmp_path / "odd.jsonl.gz", [{"body": "x"}])
    said = proctool("corpus", "build", "--corpus", path)
    assert said.code == 1
    assert said.line.startswith(f"proctool: {path}: line 1: no field")
    assert proctool("corpus", "build", "--corpus", path, "--budget", 5, "--shard", "1/2").line.startswith(
        "proctool: give"
    )


def test_importing_corpora_imports_nothing_heavy():
    code = """
import sys
import proctool.corpora, proctool.corpora.shares, proctool.corpora.bpe, proctool.cli.corpus, proctool.cli.tokenizer
print([name for name in ("torch", "transformers", "tokenizers", "datasets", "pyarrow", "sympy") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
