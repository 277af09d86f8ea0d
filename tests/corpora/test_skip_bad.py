import json

import pytest

from proctool.cli.tokenizer import TrainTokenizerOptions
from proctool.corpora import load_tokenizer, open_corpus, open_store
from proctool.errors import CorpusError
from proctool.evaluation.finetune.options import FinetuneOptions
from proctool.evaluation.options import PerplexityOptions
from proctool.training.options import PretrainOptions

SMALL = ("--model", "1x1x8", "--context", 16, "--steps", 2, "--batch-size", 2, "--eval-every", 2, "--eval-samples", 2)


@pytest.fixture
def bad(jsonl, tmp_path, monkeypatch):
    """A corpus with one bad line in its middle."""
    monkeypatch.chdir(tmp_path)
    lines = jsonl.read_text(encoding="utf-8").splitlines()
    lines[60] = '{"text": ["a", "list"]}'
    jsonl.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return jsonl


@pytest.fixture
def model(proctool, bad):
    assert proctool("pretrain", "--corpus", bad, "--skip-bad", *SMALL, "-o", "made.safetensors").code == 0
    return "made.safetensors"


COMMANDS = {
    "corpus build": ("corpus", "build", "--context", 16),
    "corpus inspect": ("corpus", "inspect", "--show", 200),
    "pretrain": ("pretrain", *SMALL, "-o", "again.safetensors", "--cache-dir", "other"),
    "eval perplexity": ("eval", "perplexity", "made.safetensors"),
    "tokenizer train": ("tokenizer", "train", "--vocab-size", 260, "-o", "trained"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_skip_bad_works_where_it_is_recommended(proctool, bad, model, command, tmp_path, monkeypatch):
    monkeypatch.setenv("PROCTOOL_CACHE", str(tmp_path / "fresh"))
    words = (*COMMANDS[command], "--corpus", bad)
    refused = proctool(*words)
    assert refused.code == 1
    assert refused.err.strip().endswith(
        'field "text" holds list, not text; fix it, or skip such documents with --skip-bad'
    )
    done = proctool(*words, "--skip-bad")
    assert done.code == 0
    assert "1 bad document skipped" in done.err


def test_finetuning_skips_too(proctool, bad, model, tmp_path, monkeypatch):
    words = ("eval", "finetune", "wikitext", "--data", bad, "--init", model, *SMALL[2:], "-o", "tuned.safetensors")
    monkeypatch.setenv("PROCTOOL_CACHE", str(tmp_path / "fresh"))
    assert "--skip-bad" in proctool(*words).line
    assert "1 bad document skipped" in proctool(*words, "--skip-bad").err
    assert proctool("eval", "finetune", "py150", "--data", bad, "--init", model, "--skip-bad").line.startswith(
        "proctool: skip_bad: works only with wikitext"
    )


def test_a_store_that_left_documents_out_says_so_and_is_recorded(proctool, bad):
    assert proctool("corpus", "build", "--corpus", bad, "--context", 16, "--skip-bad").code == 0
    used = proctool("pretrain", "--corpus", bad, *SMALL, "-o", "m.safetensors", "--json")
    assert "1 bad document skipped in its token store" in used.err
    assert json.loads(used.out)["event"] == "end"
    metadata = json.loads(proctool("inspect", "m.safetensors", "--json").out)["about"]
    assert metadata["corpus_skipped"] == 1


def test_bad_validation_documents_are_said_to_be_the_validation_corpuss(jsonl, tmp_path):
    held = tmp_path / "held.jsonl"
    held.write_text('{"text": "good and long enough"}\n[]\n7\n', encoding="utf-8")
    corpus = open_corpus(str(jsonl), validation=str(held), skip_bad=True)
    store = open_store(corpus, load_tokenizer("bytes"), 16)
    assert store.notes[-1] == f"{held}: 2 bad documents skipped in its token store"
    assert store.skipped == 2
    held.write_text("[]\n7\n", encoding="utf-8")
    store = open_store(open_corpus(str(jsonl), validation=str(held), skip_bad=True), load_tokenizer("bytes"), 16)
    with pytest.raises(CorpusError, match=r"held\.jsonl: its validation split is empty, and 2 bad documents skipped"):
        store.split("validation")


def test_a_corpus_of_bad_documents_alone_says_what_was_left_out(tmp_path, proctool):
    (tmp_path / "all.jsonl").write_text("[]\n7\n", encoding="utf-8")
    (tmp_path / "one.jsonl").write_text("[]\n" + json.dumps({"text": "t" * 9}) + "\n", encoding="utf-8")
    words = ("pretrain", "--skip-bad", *SMALL, "--corpus")
    said = proctool(*words, "all.jsonl").line
    assert "its train split is empty, and 2 bad documents skipped; run without --skip-bad to see the errors" in said
    assert "1 document with 10 tokens, too few for one row of 16" in proctool(*words, "one.jsonl").line


def test_a_sound_corpus_is_the_same_with_and_without(jsonl):
    stores = [open_store(open_corpus(str(jsonl), skip_bad=skip), load_tokenizer("bytes"), 16) for skip in (False, True)]
    assert stores[0].shards == stores[1].shards
    assert stores[1].notes == ()


@pytest.mark.parametrize("options", [PretrainOptions, PerplexityOptions, FinetuneOptions, TrainTokenizerOptions])
def test_it_is_an_option_that_changes_no_key_unless_given(options):
    assert not options().skip_bad


def test_a_pretraining_stage_has_the_key_that_it_had(tmp_path):
    from proctool.experiment.stage import Stage

    def key(**options):
        return Stage("p", ("pretrain",), PretrainOptions(**options), {}, "m.safetensors", 128).key

    assert key() == key(skip_bad=None) != key(skip_bad=True)
