import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proctool.corpora import load_tokenizer, open_corpus, tokenizers
from proctool.corpora.bpe import train_bpe
from proctool.errors import ArtifactError, CorpusError
from tests.corpora.conftest import prose

AWKWARD = [
    "plain words",
    "  two  spaces\tand\r\nlines\n\n",
    "don't stop — é ∑ 𝄞 日本",
    "it ends with <|endoftext|> inside",
    "<|endoftext|>",
    "\x00\x7f\u200b\ufeff",
    "",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "words.txt"
    path.write_text("".join(prose(seed) for seed in range(2000)), encoding="utf-8")
    return open_corpus(str(path))


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory):
    made = tmp_path_factory.mktemp("trained") / "tokenizer"
    train_bpe(corpus, 300, made)
    return made


@pytest.fixture(scope="module", params=["bytes", "characters", "trained"])
def tokenizer(request, folder):
    return load_tokenizer(str(folder) if request.param == "trained" else request.param)


@pytest.fixture(scope="module")
def exported(tokenizer, tmp_path_factory):
    """What AutoTokenizer makes of an exported folder."""
    import transformers

    path = tmp_path_factory.mktemp("hf")
    tokenizer.to_hf().save_pretrained(path)
    return transformers.AutoTokenizer.from_pretrained(path)


@pytest.mark.parametrize("text", AWKWARD)
def test_autotokenizer_gives_the_same_ids(tokenizer, exported, text):
    assert exported(text)["input_ids"] == tokenizer.encode_batch([text])[0].tolist()


@settings(deadline=None, max_examples=60)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_autotokenizer_gives_the_same_ids_for_any_text(tokenizer, exported, text):
    ids = tokenizer.encode_batch([text])[0]
    assert exported(text)["input_ids"] == ids.tolist()
    assert ids.size == 0 or ids.max() < tokenizer.vocab_size
    assert tokenizer.eos_id not in ids, "a document cannot end itself"


def test_autotokenizer_has_bos_and_eos(tokenizer, exported):
    assert exported.eos_token_id == exported.bos_token_id == tokenizer.eos_id
    assert len(exported) == tokenizer.vocab_size


@settings(deadline=None, max_examples=60)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_text_comes_back(tokenizer, text):
    if tokenizer.spec == "characters":
        text = "".join(character for character in text if character in tokenizer.alphabet)
    ids = tokenizer.encode_batch([text])[0]
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([*ids, tokenizer.eos_id]) == text


def test_text_and_its_utf8_are_one(tokenizer):
    for text in AWKWARD:
        one, other = tokenizer.encode_batch([text, text.encode()])
        assert np.array_equal(one, other)


def test_a_batch_is_its_texts(tokenizer):
    alone = [tokenizer.encode_batch([text])[0].tolist() for text in AWKWARD]
    assert [ids.tolist() for ids in tokenizer.encode_batch(AWKWARD)] == alone


@given(st.binary(max_size=300))
def test_bytes_are_kept_exactly(content):
    tokenizer = load_tokenizer("bytes")
    ids = tokenizer.encode_batch([content])[0]
    assert ids.tolist() == list(content)
    assert tokenizer.decode_bytes(ids) == content


def test_tokenizers_that_differ_have_fingerprints_that_differ(folder, corpus, tmp_path):
    train_bpe(corpus, 310, tmp_path / "other")
    specs = ["bytes", "characters", str(folder), str(tmp_path / "other")]
    assert len({load_tokenizer(spec).fingerprint for spec in specs}) == 4
    assert load_tokenizer(str(folder)).fingerprint == load_tokenizer(str(folder / "tokenizer.json")).fingerprint


def test_training_gives_the_size_asked_for_and_the_same_again(corpus, folder, tmp_path):
    again = train_bpe(corpus, 300, tmp_path / "again")
    assert again.vocab_size == 300
    assert again.eos_id == 299
    assert again.fingerprint == load_tokenizer(str(folder)).fingerprint
    assert len(again.encode_batch(["the of and in to"])[0]) < len("the of and in to") / 2


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_gpt2s_files_give_the_tokenizer_they_came_from(folder, tmp_path, names):
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    vocab = {**model["vocab"], tokenizers.END_OF_TEXT: 299}
    (tmp_path / names[0]).write_text(json.dumps(vocab))
    merges = [" ".join(merge) for merge in model["merges"]]
    (tmp_path / names[1]).write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    read, trained = load_tokenizer(str(tmp_path)), load_tokenizer(str(folder))
    assert (read.vocab_size, read.eos_id) == (300, 299)
    for text in AWKWARD:
        assert np.array_equal(read.encode_batch([text])[0], trained.encode_batch([text])[0])


def test_eos_is_the_one_that_tokenizer_config_names(folder, tmp_path):
    import tokenizers as library

    backend = library.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.add_special_tokens(["<stop>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(str(tmp_path)).eos_id == 299
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "<stop>"}}')
    assert load_tokenizer(str(tmp_path)).eos_id == 300


def test_tokenizers_travel_to_workers(tokenizer):
    import pickle

    there = pickle.loads(pickle.dumps(tokenizer))
    for text in AWKWARD:
        assert np.array_equal(there.encode_batch([text])[0], tokenizer.encode_batch([text])[0])


def test_a_vocabulary_that_does_not_fit_the_model_is_said(tokenizer):
    tokenizer.require_fit(tokenizer.vocab_size, "model.safetensors")
    with pytest.raises(CorpusError, match=r"model\.safetensors: its vocabulary of 50 is too small for the tokenizer"):
        tokenizer.require_fit(50, "model.safetensors")


@pytest.mark.parametrize(
    ("content", "said"),
    [("not json", "not a tokenizers JSON file"), (None, "no such file or folder")],
)
def test_bad_tokenizer_files_are_named(tmp_path, content, said):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CorpusError, match=rf"tokenizer\.json: {said}"):
        load_tokenizer(str(path))


def test_a_tokenizer_without_end_of_text_is_named(tmp_path):
    import tokenizers as library

    path = tmp_path / "tokenizer.json"
    library.Tokenizer(library.models.WordLevel({"a": 0}, "a")).save(str(path))
    with pytest.raises(CorpusError, match=r"tokenizer\.json: no end-of-text token"):
        load_tokenizer(str(path))


def test_names_without_network_say_what_else_there_is():
    with pytest.raises(CorpusError, match='tokenizer "no-such-name": not a local path, and the hub could not give it'):
        load_tokenizer("no-such-name")


@pytest.mark.parametrize(
    ("size", "said"),
    [(100, "at least 257"), (50_000, "too little text for a vocabulary"), (10**9, "at most 10000000")],
)
def test_impossible_vocabularies(corpus, tmp_path, size, said):
    with pytest.raises(CorpusError, match=said):
        train_bpe(corpus, size, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_tokenizer_is_not_overwritten(corpus, folder):
    with pytest.raises(ArtifactError, match="not an empty folder"):
        train_bpe(corpus, 300, folder)


def test_a_tokenizer_appears_complete_or_not_at_all(corpus, tmp_path, monkeypatch):
    def interrupted(self, folder):
        (Path(folder) / "tokenizer_config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_bpe(corpus, 300, tmp_path / "made")
    assert list(tmp_path.glob("*made*")) == []
