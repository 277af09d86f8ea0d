"""What a text is read after: a foreign model's as its own tokenizer begins it, ours after end-of-text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers

import proctool as package
from proctool.corpora import load_tokenizer
from proctool.evaluation.blimp import encode, log_probabilities
from proctool.evaluation.eval_model import open_subject
from proctool.evaluation.mathematics import Question, answer_all
from proctool.evaluation.options import PerplexityOptions
from proctool.evaluation.perplexity import perplexity
from proctool.export.folder import export
from proctool.models.saved import open_model
from tests.conftest import Said
from tests.evaluation.foreign import BOS, EOS, KINDS, VOCABULARY, save_llama, save_tokenizer
from tests.evaluation.speakers import AGREEMENT

TEXTS = ("ka lomi ter", "x", "The naïve cat – sat.", "a <s> within")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def plain_loss(folder: Path, first: int, corpus: Path) -> tuple[float, int]:
    """Nats and tokens of the texts by transformers' own forward pass, each after `first`."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = load_tokenizer(str(folder))
    nats, count = 0.0, 0
    for text in TEXTS:
        ids = torch.tensor([[first, *tokenizer.encode_batch([text])[0].tolist(), EOS]])
        with torch.no_grad():
            found = model(ids).logits[0, :-1].double().log_softmax(-1)
        nats -= float(found[torch.arange(ids.shape[1] - 1), ids[0, 1:]].sum())
        count += ids.shape[1] - 1
    return nats, count


@pytest.mark.parametrize("name", KINDS)
def test_a_foreign_model_reads_what_its_tokenizer_begins_a_text_with(tmp_path: Path, corpus: Path, name: str) -> None:
    kind = KINDS[name]
    folder = save_llama(tmp_path / "hf", kind)
    subject = open_subject(folder, None)
    assert subject.beginning.first == (kind.first,)
    assert subject.beginning.added == kind.added
    found = perplexity(folder, PerplexityOptions(corpus=str(corpus), split="train"))
    nats, count = plain_loss(folder, kind.first, corpus)
    assert found["targets"] == count
    assert found["loss"] == pytest.approx(nats / count, rel=1e-5)
    assert found["texts_begin"] == [kind.first]
    assert encode(subject, ["x"], leading_space=False)[0].tolist() == [kind.first, VOCABULARY["x"]]


def test_questions_are_asked_as_the_tokenizer_begins_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def greedy(model: object, prompts: object, most: object, eos_id: int, vocab_size: int) -> list[list[int]]:
        asked.extend(prompts.tolist())
        return [[eos_id] for _ in prompts]

    monkeypatch.setattr("proctool.evaluation.mathematics.greedy", greedy)
    for name in ("llama", "bos not put in front"):
        subject = open_subject(save_llama(tmp_path / name, KINDS[name]), None)
        answer_all(subject, [Question("interpolate", "m", "x", "y")], 1, lambda done, of: None)
    assert asked == [[BOS, VOCABULARY["x"]], [VOCABULARY["x"]]]


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_scores_are_those_of_the_harness_on_the_folder(tmp_path: Path, corpus: Path, name: str) -> None:
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    folder = save_llama(tmp_path / "hf", KINDS[name])
    if name == "neither":  # the harness needs one of the two
        return
    # Without add_bos_token=False the harness reads <s> twice in a rolling score, and counts the second as text.
    harness = huggingface.HFLM(pretrained=str(folder), device="cpu", batch_size=1, add_bos_token=False)
    texts = [text for text in TEXTS if "<s>" not in text]  # which the harness takes for the token
    rolling = harness.loglikelihood_rolling([SimpleNamespace(args=(text,)) for text in texts], disable_tqdm=True)
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    found = perplexity(folder, PerplexityOptions(corpus=str(corpus), split="train"))
    ends = found["end_of_text"]
    nats = found["loss"] * found["targets"] - ends["loss"] * ends["targets"]
    assert -sum(rolling) == pytest.approx(nats, rel=1e-5)

    sentences = [sentence for pair in AGREEMENT for sentence in pair]
    subject = open_subject(folder, None)
    ours = log_probabilities(subject.model(), encode(subject, sentences, leading_space=True), 4)
    requests = [SimpleNamespace(args=("", f" {sentence}")) for sentence in sentences]
    theirs = [score for score, _ in harness.loglikelihood(requests, disable_tqdm=True)]
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_model_that_proctool_trains_begins_after_end_of_text_and_so_does_its_export(
    proctool: Callable[..., Said], tmp_path: Path, text: Path
) -> None:
    save_tokenizer(tmp_path / "tokenizer")
    said = proctool(
        "pretrain", "--corpus", text, "--tokenizer", "tokenizer", "--model", "1x2x16", "--context", 16, "--steps", 1,
        "--batch-size", 2, "--eval-samples", 2, "-o", "m.safetensors",
    )  # fmt: skip
    assert said.code == 0, said.err
    said = proctool("export", "m.safetensors", "hf")
    assert "begin after </s>: the exported tokenizer has it as its BOS token" in said.err
    loaded = transformers.AutoTokenizer.from_pretrained("hf")
    assert loaded("<s>x</s>")["input_ids"] == [BOS, VOCABULARY["x"], EOS]
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token, loaded.unk_token) == (
        "</s>",
        "</s>",
        "<pad>",
        "<unk>",
    )
    options = PerplexityOptions(corpus=str(text), documents=2)
    found = [perplexity(tmp_path / model, options) for model in ("m.safetensors", "hf")]
    assert found[0]["texts_begin"] == found[1]["texts_begin"] == [EOS]
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-6)


def test_a_transplanted_foreign_model_keeps_its_beginning_and_its_files(tmp_path: Path, corpus: Path) -> None:
    folder = save_llama(tmp_path / "hf")
    made = tmp_path / "m.safetensors"
    package.transplant(base=folder, attention=folder, output=made)
    options = PerplexityOptions(corpus=str(corpus), split="train")
    assert perplexity(made, options)["loss"] == pytest.approx(perplexity(folder, options)["loss"], rel=1e-6)
    export(open_model(made), tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize(("embeddings", "first"), [("copy", BOS), ("mean", EOS)])
def test_going_on_with_a_foreign_models_embeddings_keeps_its_beginning(
    proctool: Callable[..., Said], tmp_path: Path, text: Path, embeddings: str, first: int
) -> None:
    folder = save_llama(tmp_path / "hf")
    said = proctool(
        "pretrain", "--init", "hf", "--tokenizer", "hf", "--model", "hf/config.json", "--embeddings", embeddings,
        "--corpus", text, "--context", 16, "--steps", 1, "--batch-size", 2, "--eval-samples", 2, "-o", "m.safetensors",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert open_subject(tmp_path / "m.safetensors", None).beginning.first == (first,)
    export(open_model(tmp_path / "m.safetensors"), tmp_path / "out")
    same = (tmp_path / "out" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert same == (embeddings == "copy")
    assert open_subject(tmp_path / "out", None).beginning.first == (first,)


def test_a_beginning_beyond_the_models_vocabulary_is_one_line(proctool: Callable[..., Said], tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "hf")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "bos_token": "<begin>"}))
    definition = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**definition, "post_processor": None}))
    said = proctool("eval", "perplexity", "hf", "--corpus", "python")
    assert said.code == 1
    assert (
        f"starts texts with token {len(VOCABULARY)}, but the model's vocabulary has only {len(VOCABULARY)}" in said.line
    )
