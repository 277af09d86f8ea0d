import base64
import bz2
import shutil

import pytest

import proctool as package
from proctool.corpora import load_tokenizer, open_corpus
from proctool.corpora.bpe import train_bpe
from proctool.corpora.carried import DEFINITION, load_record, record
from proctool.errors import ArtifactError, CorpusError
from proctool.export.folder import export
from proctool.models.build import build_model, model_config
from proctool.models.saved import open_model, save_model
from tests.corpora.conftest import prose

TEXT = "the of and — é in to was <|endoftext|>"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tokenizer of our own, whose folder is gone by the time that anything is read."""
    root = tmp_path_factory.mktemp("trained")
    (root / "words.txt").write_text("".join(prose(seed) for seed in range(300)), encoding="utf-8")
    made = train_bpe(open_corpus(str(root / "words.txt")), 270, root / "tokenizer")
    shutil.rmtree(root)
    return made


def save(path, tokenizer, vocab=None, metadata=None):
    config = model_config("1x2x16", vocab_size=vocab or tokenizer.vocab_size, context=32, eos_id=tokenizer.eos_id)
    return save_model(path, build_model(config, 0), record(tokenizer) if metadata is None else metadata)


def test_a_model_is_exported_where_its_tokenizers_folder_is_gone(trained, tmp_path):
    import transformers

    save(tmp_path / "m.safetensors", trained)
    export(open_model(tmp_path / "m.safetensors"), tmp_path / "hf")
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert loaded.bos_token_id == loaded.eos_token_id == trained.eos_id
    assert loaded(TEXT)["input_ids"] == trained.encode_batch([TEXT])[0].tolist()


@pytest.mark.slow
def test_the_export_is_all_that_a_pipeline_needs(trained, tmp_path):
    import transformers

    save(tmp_path / "m.safetensors", trained)
    export(open_model(tmp_path / "m.safetensors"), tmp_path / "hf")
    generate = transformers.pipeline("text-generation", model=str(tmp_path / "hf"))
    said = generate("the of", max_new_tokens=4, do_sample=False)[0]["generated_text"]
    assert said.startswith("the of")


def test_it_is_the_same_tokenizer_and_opens_the_same_stores(trained, tmp_path):
    save(tmp_path / "m.safetensors", trained)
    found = open_model(tmp_path / "m.safetensors").tokenizer()
    assert found.fingerprint == trained.fingerprint
    assert found.encode_batch([TEXT])[0].tolist() == trained.encode_batch([TEXT])[0].tolist()


def test_the_tensors_of_a_file_are_its_weights_and_equal_work_is_equal(trained, tmp_path):
    with_it = save(tmp_path / "a.safetensors", trained)
    without = save(tmp_path / "b.safetensors", trained, metadata={})
    save(tmp_path / "c.safetensors", trained)
    assert with_it.tensors.keys() == without.tensors.keys()
    assert with_it.content == without.content
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["bytes", "characters"])
def test_built_in_tokenizers_are_known_by_name(name):
    assert record(load_tokenizer(name)) == {"tokenizer": name}
    assert load_record({"tokenizer": name}, "m").fingerprint == load_tokenizer(name).fingerprint
    assert load_record({}, "m") is None


def test_transplants_hand_it_on_with_the_embeddings(trained, tmp_path):
    base, out = tmp_path / "base.safetensors", tmp_path / "out.safetensors"
    save(base, trained)
    package.transplant(base=base, attention=base, output=out, force=True)
    assert open_model(out).tokenizer().fingerprint == trained.fingerprint
    export(open_model(base), tmp_path / "hf")
    package.transplant(base=tmp_path / "hf", attention=base, output=out, force=True)
    assert open_model(out).tokenizer().fingerprint == trained.fingerprint
    package.transplant(attention=base, output=out, force=True)
    assert open_model(out).tokenizer() is None


def packed(text, size=None):
    content = text.encode()
    squeezed = base64.b64encode(bz2.compress(content)).decode()
    return {"end_of_text": "<|endoftext|>", "bytes": size or len(content), "bz2": squeezed}


DAMAGED = {
    "no object": "text",
    "nothing in it": {},
    "not base64": {"end_of_text": "x", "bytes": 3, "bz2": "\u2603"},
    "not bzip2": {"end_of_text": "x", "bytes": 3, "bz2": "AAAA"},
    "not a tokenizer": packed("{}"),
    "longer than it says": packed("x" * 5_000_000, size=100),
    "too long": packed("x", size=1 << 40),
    "no end-of-text": packed(load_tokenizer("bytes").definition) | {"end_of_text": "<stop>"},
    "end-of-text is a number": packed(load_tokenizer("bytes").definition) | {"end_of_text": 256},
    "files nested too deeply": packed("x") | {"files": packed("[" * 100_000)},
    "cut off": packed("{}") | {"bz2": packed("{}")["bz2"][:24]},
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_one_is_said_and_nothing_is_exported(trained, tmp_path, damage):
    path = tmp_path / "m.safetensors"
    save(path, trained, metadata={"tokenizer": "ours", DEFINITION: DAMAGED[damage]})
    with pytest.raises(ArtifactError, match=r"m\.safetensors: the tokenizer in it is damaged \(.*make the file again"):
        export(open_model(path), tmp_path / "hf")
    assert [each.name for each in tmp_path.iterdir()] == ["m.safetensors"]


def test_one_too_large_for_the_model_is_said(trained, tmp_path):
    save(tmp_path / "m.safetensors", trained, vocab=trained.vocab_size - 1)
    with pytest.raises(CorpusError, match=r"m\.safetensors: its vocabulary of 269 is too small for the tokenizer"):
        export(open_model(tmp_path / "m.safetensors"), tmp_path / "hf")


def test_an_older_file_that_only_names_it_says_so(trained, tmp_path):
    save(tmp_path / "m.safetensors", trained, metadata={"tokenizer": "/far/away"})
    with pytest.raises(CorpusError, match=r"m\.safetensors: has only the name of its tokenizer, .*/far/away"):
        export(open_model(tmp_path / "m.safetensors"), tmp_path / "hf")


def test_the_commands_need_the_file_alone(proctool, trained, tmp_path, text):
    path = tmp_path / "tokenizer"
    trained.to_hf().save_pretrained(path)
    said = proctool(
        "pretrain", "--corpus", text, "--tokenizer", path, "--model", "1x2x16", "--context", 16, "--steps", 1,
        "--batch-size", 2, "--eval-samples", 2, "-o", "m.safetensors",
    )  # fmt: skip
    assert said.code == 0, said.err
    shutil.rmtree(path)
    assert proctool("export", "m.safetensors", "hf").code == 0
    for model in ("m.safetensors", "hf"):
        said = proctool("eval", "perplexity", model, "--corpus", text, "--documents", 2)
        assert said.code == 0, said.err
    shown = proctool("inspect", "m.safetensors", "--json").out
    assert '"files": {"bytes": ' in shown
    assert "bz2" not in shown


def test_what_a_tokenizer_adds_by_itself_is_not_in_training_nor_in_the_export(tmp_path):
    import tokenizers
    import transformers

    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "<s>": 1, "</s>": 2}, "a"))
    backend.add_special_tokens(["<s>", "</s>"])
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(str(tmp_path))
    loaded.to_hf().save_pretrained(tmp_path / "hf")
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")("a")["input_ids"]
    assert ids == loaded.encode_batch(["a"])[0].tolist() == [0]
