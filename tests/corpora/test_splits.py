import json

import pytest

from proctool.corpora import load_tokenizer, open_corpus, open_store
from proctool.errors import CorpusError
from tests.corpora.conftest import math_tree, prose

BYTES = load_tokenizer("bytes")
SMALL = ("--model", "1x1x8", "--context", 16, "--steps", 2, "--batch-size", 2, "--eval-every", 2, "--eval-samples", 2)


def lines(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def held(corpus):
    return {split: [d.content.decode() for d in corpus.documents(split)] for split in corpus.splits}


LAYOUTS = [
    ("train.jsonl", "validation.jsonl", "test.jsonl"),
    ("train/a.jsonl", "valid/a.jsonl", "test/a.jsonl"),
    ("data/train-00000-of-00001.jsonl", "data/val-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl"),
    ("en/c4-train.00000-of-01024.json", "en/c4-validation.00000-of-00008.json", "en/c4-test.json"),
    ("wiki.train.jsonl", "wiki.DEV.jsonl", "wiki.testing.jsonl"),
]


@pytest.mark.parametrize("names", LAYOUTS, ids=[names[1] for names in LAYOUTS])
def test_folders_of_splits_are_taken_as_they_are(tmp_path, names):
    for name, texts in zip(names, (["a", "b"], ["c"], ["d"]), strict=True):
        lines(tmp_path / name, texts)
    corpus = open_corpus(str(tmp_path))
    assert held(corpus) == {"train": ["a", "b"], "validation": ["c"], "test": ["d"]}
    assert corpus.notes == (f"{tmp_path}: splits by file names: train 1, validation 1, test 1",)


def test_without_validation_some_of_train_is_taken_and_test_stays_apart(tmp_path):
    lines(tmp_path / "train.jsonl", [prose(seed) for seed in range(200)])
    lines(tmp_path / "test.jsonl", ["only here", prose(3)])
    corpus = open_corpus(str(tmp_path))
    found = held(corpus)
    assert found["test"] == ["only here", prose(3)]
    assert len(found["train"]) > 150 > len(found["validation"]) > 0
    store = open_store(corpus, BYTES, 16)
    kept = sum(store.count(split, "documents") for split in ("train", "validation"))
    assert kept == 199, "what stands in test is not trained on"


@pytest.mark.parametrize(
    "names", [("a.jsonl", "b.jsonl"), ("train.py", "test.py"), ("train.jsonl", "b.jsonl"),
              ("valid.jsonl", "test.jsonl"),
              ("src/a.py", "test/b.py"), ("train.jsonl", "train-2.jsonl"), ("train-test.jsonl", "train.jsonl")],
)  # fmt: skip
def test_other_folders_keep_their_identity(tmp_path, names):
    for name in names:
        lines(tmp_path / name, [name])
    corpus = open_corpus(str(tmp_path))
    (part,) = corpus.parts
    assert part.split is None
    assert part.identity.keys() == {"files", "text_field", "split", "reading", "formats"}
    assert corpus.notes == ()


def test_a_file_that_names_no_split_among_those_that_do_is_said(tmp_path):
    for name in ("train.jsonl", "validation.jsonl", "extra.jsonl"):
        lines(tmp_path / name, [name])
    corpus = open_corpus(str(tmp_path))
    assert corpus.notes == (
        f"{tmp_path}: extra.jsonl: its name gives no split, so all documents are split by their hash",
    )


def test_the_papers_of_a_repository_are_no_documents(tmp_path):
    lines(tmp_path / "data" / "train-0.jsonl", ["a"])
    lines(tmp_path / "data" / "validation-0.jsonl", ["b"])
    for name in (
        "README.md",
        "LICENSE",
        "LICENSE.txt",
        "CITATION.md",
        "dataset_infos.json",
        ".gitattributes",
        "data/readme.md",
    ):
        (tmp_path / name).write_text("{}")
    assert held(open_corpus(str(tmp_path))) == {"train": ["a"], "validation": ["b"]}
    assert [d.content for d in open_corpus(str(tmp_path / "README.md")).documents()] == [b"{}"]


def test_a_folder_of_text_keeps_its_readme(tmp_path):
    (tmp_path / "README.md").write_text("read me")
    (tmp_path / "code.py").write_text("code")
    assert len(list(open_corpus(str(tmp_path)).documents())) == 2


def test_what_datasets_saved_is_read(tmp_path):
    import datasets

    train, test = ({"text": [prose(seed) for seed in seeds]} for seeds in (range(50), range(50, 60)))
    made = datasets.DatasetDict(train=datasets.Dataset.from_dict(train), test=datasets.Dataset.from_dict(test))
    made.save_to_disk(str(tmp_path / "both"), num_shards={"train": 3, "test": 1})
    (tmp_path / "both" / "train" / "cache-1f.arrow").write_bytes(b"left over")
    corpus = open_corpus(str(tmp_path / "both"))
    found = held(corpus)
    assert sorted(found["train"] + found["validation"]) == sorted(train["text"])
    assert found["test"] == test["text"]
    made["train"].save_to_disk(str(tmp_path / "one"), num_shards=2)
    assert [d.content.decode() for d in open_corpus(str(tmp_path / "one")).documents()] == train["text"]
    for damaged in ("{}", "[" * 100_000):
        (tmp_path / "one" / "state.json").write_text(damaged)
        with pytest.raises(CorpusError, match=r"state\.json: does not list the folder's arrow files"):
            open_corpus(str(tmp_path / "one"))


@pytest.fixture
def mine(tmp_path):
    return lines(tmp_path / "mine.jsonl", [f"of my own {number}" for number in range(7)])


def test_a_validation_corpus_is_used_whole_and_all_of_the_corpus_trains(jsonl, mine, texts):
    corpus = open_corpus(str(jsonl), validation=str(mine))
    assert held(corpus) == {"train": texts, "validation": [f"of my own {number}" for number in range(7)]}
    store = open_store(corpus, BYTES, 16)
    assert (store.count("train", "documents"), store.count("validation", "documents")) == (120, 7)
    assert store.content != open_store(open_corpus(str(jsonl)), BYTES, 16).content


def test_documents_of_the_validation_corpus_are_not_trained_on(jsonl, tmp_path, texts):
    shared = lines(tmp_path / "shared.jsonl", texts[:5])
    for _ in ("built", "found"):
        store = open_store(open_corpus(str(jsonl), validation=str(shared)), BYTES, 16)
        assert store.count("train", "documents") == 115
        assert store.notes[-1] == f"{jsonl}: 5 documents are also in {shared}, and not used for training"


def test_its_own_validation_split_is_taken_and_the_corpus_loses_its(tmp_path, mine):
    for folder in ("one", "two"):
        for split in ("train", "validation"):
            lines(tmp_path / folder / f"{split}.jsonl", [f"{folder} {split}"])
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert held(open_corpus(one, validation=two)) == {"train": ["one train"], "validation": ["two validation"]}
    assert len(held(open_corpus(one, validation=str(mine)))["validation"]) == 7


def test_mathematics_and_text_do_not_mix(tmp_path, mine):
    with pytest.raises(CorpusError, match="cannot be mixed"):
        open_corpus(f"mathematics:{math_tree(tmp_path / 'tree')}", validation=str(mine))


def test_commands_take_a_validation_corpus(proctool, jsonl, mine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = proctool("pretrain", "--corpus", jsonl, "--validation", mine, *SMALL, "-o", "m.safetensors")
    assert said.code == 0
    assert f"validation documents come from {mine}" in said.err
    metadata = json.loads(proctool("inspect", "m.safetensors", "--json").out)["about"]
    assert metadata["training"]["validation"] == "mine.jsonl"
    scored = proctool("eval", "perplexity", "m.safetensors", "--corpus", jsonl, "--validation", mine, "--json")
    assert json.loads(scored.out)["documents"] == 7
    built = proctool("corpus", "build", "--corpus", jsonl, "--validation", mine, "--context", 16, "--json")
    assert json.loads(built.out)["validation"]["documents"] == 7
    tuned = proctool("eval", "finetune", "wikitext", "--data", jsonl, "--validation", mine, "--init", "m.safetensors",
                     *SMALL[2:], "-o", "t.safetensors", "--json")  # fmt: skip
    assert tuned.code == 0


def test_a_recipe_takes_it_for_pretraining_alone_and_keys_follow_it(tmp_path, jsonl, mine):
    from proctool.experiment.graph import plan
    from proctool.recipe import load_recipe

    def stages(pretrain):
        path = tmp_path / "recipe.yaml"
        path.write_text(
            f"name: r\nmodel: 1x1x8\ncorpus: {jsonl}\ncontext: 16\npretrain: {json.dumps(pretrain)}\n"
            f"finetune: {{more: {{corpus: {jsonl}}}}}\narms: {{cold: {{}}}}\n"
        )
        return {stage.name.partition("-")[0]: stage for stage in plan(load_recipe(path), tmp_path / "r").stages}

    before, after = stages({"steps": 4}), stages({"steps": 4, "validation": str(mine)})
    assert before["pretrain"].key != after["pretrain"].key
    assert after["pretrain"].options.validation == str(mine)
    assert {stage.options.validation for name, stage in after.items() if name != "pretrain"} == {None}
