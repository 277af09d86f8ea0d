"""Perplexity: what transformers' own forward gives token by token, however documents are cut and batched."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proctool.corpora.bpe import train_bpe
from proctool.corpora.catalog import open_corpus
from proctool.corpora.documents import Document
from proctool.corpora.tokenizers import ByteTokenizer, Tokenizer
from proctool.evaluation.eval_model import open_subject
from proctool.evaluation.options import PerplexityOptions
from proctool.evaluation.perplexity import cut, perplexity
from proctool.models.build import build_model, model_config
from proctool.models.saved import save_model
from tests.conftest import Said
from tests.evaluation.speakers import CONTEXT, save_speaker

TEXTS = (
    "x",
    "The naïve cat sat on the mat; the cat sat, and sat – ∑.\n",
    "the mat and the cat and " * 9 + "an end.",
    "a" * CONTEXT,  # with end-of-text, one id more than a window holds
    "b" * (CONTEXT - 1),  # fills it
    "The cat and the mat. " * 4,
)
HELD_OUT = "held out 33"
SPLITS = ("train", "validation")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """The texts for training, and one that goes to validation by its contents."""
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in (*TEXTS, "", HELD_OUT)), "utf-8")
    splits = {split: [each.content.decode() for each in open_corpus(str(path)).documents(split)] for split in SPLITS}
    assert splits == {"train": list(TEXTS), "validation": [HELD_OUT]}
    return path


@pytest.fixture
def tokenizers(tmp_path: Path, corpus: Path) -> dict[str, Tokenizer]:
    return {"bytes": ByteTokenizer(), "bpe": train_bpe(open_corpus(str(corpus)), 280, tmp_path / "bpe")}


def token_by_token(path: Path, documents: list[Document], context: int, stride: int) -> dict[str, Any]:
    """Each token's loss by a forward pass of its own over what it is to be predicted from.

    That is what the first window in which it is predicted holds before it; windows begin every `stride` tokens.
    """
    subject = open_subject(path, None)
    model, eos = subject.saved.model().eval(), subject.tokenizer.eos_id
    at: dict[int, list[float]] = {}
    windows: dict[tuple[int, int], dict[int, float]] = {}
    right = length = 0
    ends = 0.0
    for number, document in enumerate(documents):
        content, answer = subject.tokenizer.encode_batch([document.content, document.answer or b""])
        ids = [eos, *content.tolist(), *answer.tolist(), eos]
        first = 1 if document.answer is None else 1 + len(content)
        for place in range(first, len(ids)):
            begin = max(0, -(-(place - context) // stride)) * stride
            with torch.no_grad():
                logits = model(torch.tensor([ids[begin:place]])).logits[0, -1].double()
            at.setdefault(place - begin, []).append(-float(logits.log_softmax(-1)[ids[place]]))
            windows.setdefault((number, begin), {})[place - begin] = at[place - begin][-1]
            ends += at[place - begin][-1] if place == len(ids) - 1 else 0.0
            right += int(logits.argmax()) == ids[place]
        length += len(document.content if document.answer is None else document.answer)
    losses = [loss for each in at.values() for loss in each]
    return {
        "at": at,
        "windows": list(windows.values()),
        "losses": losses,
        "ends": ends,
        "nats": sum(losses),
        "right": right / len(losses),
        "bytes": length,
    }


def test_the_in_context_learning_score_compares_tokens_50_and_context(tmp_path: Path, corpus: Path) -> None:
    path = save_speaker(tmp_path / "m.safetensors", context=64)
    documents = list(open_corpus(str(corpus)).documents("train"))
    for context, stride in ((50, 50), (51, 51), (60, 7)):
        found = perplexity(
            path, PerplexityOptions(corpus=str(corpus), split="train", context=context, stride=stride, batch_size=3)
        )["loss_parts"]
        plain = token_by_token(path, documents, context, stride)["windows"]
        pairs = [losses for losses in plain if {49, context - 1} <= losses.keys()]
        assert pairs
        if context == 50:
            assert (found["icl_score"], found["icl_rows"]) == (None, 0)
        else:
            score = sum(losses[49] - losses[context - 1] for losses in pairs) / len(pairs)
            assert (found["icl_rows"], found["icl_score"]) == (len(pairs), pytest.approx(score, rel=1e-4))


def copyable(tokenizer: Tokenizer, documents: list[Document], context: int, stride: int, n: int) -> int:
    """Scored tokens that complete an n-gram which their window has had before."""
    found = 0
    for document in documents:
        ids = np.array([tokenizer.eos_id, *tokenizer.encode_batch([document.content])[0], tokenizer.eos_id])
        for window in cut(ids, np.arange(len(ids)) > 0, context, stride):
            grams = [tuple(window.ids[at - n + 1 : at + 1]) if at >= n - 1 else () for at in range(len(window.ids))]
            found += sum(bool(grams[at]) and grams[at] in grams[:at] for at in window.scored.nonzero()[0])
    return found


@pytest.mark.parametrize(
    ("context", "stride", "batch_size"),
    [(None, None, 1), (None, 7, 3), (16, None, 64), (16, 1, 5), (16, 15, 2), (1, 1, 9)],
)
@pytest.mark.parametrize("name", ["bytes", "bpe"])
def test_every_token_is_scored_once_as_in_a_forward_pass_of_its_own(
    tmp_path: Path,
    corpus: Path,
    tokenizers: dict[str, Tokenizer],
    name: str,
    context: int | None,
    stride: int | None,
    batch_size: int,
) -> None:
    path = save_speaker(tmp_path / "m.safetensors", tokenizer=tokenizers[name])
    found = perplexity(
        path,
        PerplexityOptions(corpus=str(corpus), split="train", context=context, stride=stride, batch_size=batch_size),
    )
    documents = list(open_corpus(str(corpus)).documents("train"))
    plain = token_by_token(path, documents, context or CONTEXT, stride or context or CONTEXT)
    assert found["targets"] == len(plain["losses"])
    assert found["loss"] == pytest.approx(plain["nats"] / len(plain["losses"]), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(plain["nats"] / len(plain["losses"])), rel=1e-4)
    assert found["bytes"] == plain["bytes"] == sum(len(document.content) for document in documents)
    assert found["bits_per_byte"] == pytest.approx(plain["nats"] / math.log(2) / plain["bytes"], rel=1e-5)
    assert found["accuracy"] == pytest.approx(plain["right"])
    assert found["documents"] == found["end_of_text"]["targets"] == len(documents)
    assert found["end_of_text"]["loss"] == pytest.approx(plain["ends"] / len(documents), rel=1e-5)
    assert found["lossless"]
    for position in range(1, (context or CONTEXT) + 1):
        losses = plain["at"].get(position, [])
        assert found["by_position"]["targets"][position - 1] == len(losses)
        if losses:
            assert found["by_position"]["loss"][position - 1] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert found["loss_parts"]["icl_score"] is None  # a context of 48 tokens is too short
    bands, ngrams = found["loss_parts"]["bands"], found["loss_parts"]["ngrams"]
    assert sum(band["targets"] for band in bands) == found["targets"]
    for band in bands:
        within = [loss for at in range(band["first"], band["last"] + 1) for loss in plain["at"].get(at, [])]
        assert (band["targets"], band["loss"]) == (len(within), pytest.approx(sum(within) / len(within), rel=1e-4))
    for each in ngrams:
        repeats = copyable(tokenizers[name], documents, context or CONTEXT, stride or context or CONTEXT, each["n"])
        parts = each["copyable"], each["other"]
        assert [part["targets"] for part in parts] == [repeats, found["targets"] - repeats]
        nats = sum(part["targets"] * (part["loss"] or 0) for part in parts)
        assert nats == pytest.approx(plain["nats"], rel=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_windows_score_each_id_once_with_as_much_before_it_as_the_stride_leaves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    length, context = int(rng.integers(2, 90)), int(rng.integers(1, 40))
    stride = int(rng.integers(1, context + 1))
    ids = np.arange(length)
    wanted = rng.random(length) < 0.7
    wanted[0] = False
    times = np.zeros(length, int)
    for window in cut(ids, wanted, context, stride):
        assert len(window.ids) <= context + 1
        assert window.ids[0] % stride == 0
        assert window.scored.any()
        for before, (one, scored) in enumerate(zip(window.ids, window.scored, strict=True)):
            times[one] += scored
            assert not scored or before >= min(one, context - stride + 1)
    assert times.tolist() == wanted.astype(int).tolist()


def test_bits_per_byte_are_those_of_the_text_whatever_the_tokenizer(
    tmp_path: Path, corpus: Path, tokenizers: dict[str, Tokenizer]
) -> None:
    found = {}
    for name, tokenizer in tokenizers.items():
        # All ids alike: each token, end-of-text too, costs the logarithm of the vocabulary.
        model = build_model(
            model_config("1x2x16", vocab_size=tokenizer.vocab_size, context=CONTEXT, eos_id=tokenizer.eos_id), 0
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        path = tmp_path / f"{name}.safetensors"
        save_model(path, model, {"tokenizer": "bytes"})
        spec = None if name == "bytes" else str(tmp_path / "bpe")
        found[name] = perplexity(path, PerplexityOptions(corpus=str(corpus), split="train", tokenizer=spec))
        assert found[name]["perplexity"] == pytest.approx(tokenizer.vocab_size, rel=1e-5)
        tokens = sum(map(len, tokenizer.encode_batch(list(TEXTS)))) + len(TEXTS)
        assert found[name]["bits_per_byte"] == pytest.approx(
            tokens * math.log2(tokenizer.vocab_size) / sum(len(text.encode()) for text in TEXTS), rel=1e-5
        )
    assert found["bytes"]["targets"] > found["bpe"]["targets"]
    for same in ("bytes", "documents", "text_sha256"):
        assert found["bytes"][same] == found["bpe"][same]
    assert found["bytes"]["tokenizer_sha256"] != found["bpe"]["tokenizer_sha256"]


def test_a_tokenizer_that_loses_text_is_told(proctool: Callable[..., Said], tmp_path: Path, corpus: Path) -> None:
    save_speaker(tmp_path / "m.safetensors")
    command = ("eval", "perplexity", "m.safetensors", "--corpus", corpus, "--split", "train", "--tokenizer")
    said = proctool(*command, "characters", "--json")
    assert json.loads(said.out)["lossless"] is False
    assert "not comparable" in said.err
    assert "not comparable" not in proctool(*command, "bytes").err


def test_of_questions_the_answers_alone_are_scored(tmp_path: Path) -> None:
    for level in ("train-easy", "interpolate"):
        (tmp_path / "tree" / level).mkdir(parents=True)
        rows = [f"What is {number} plus {number}?\n{2 * number}\n" for number in range(4, 12)]
        (tmp_path / "tree" / level / "arithmetic__doubles.txt").write_text("".join(rows))
    path = save_speaker(tmp_path / "m.safetensors")
    name = f"mathematics:{tmp_path / 'tree'}"
    found = perplexity(path, PerplexityOptions(corpus=name))
    plain = token_by_token(path, list(open_corpus(name).documents("validation")), CONTEXT, CONTEXT)
    assert found["targets"] == len(plain["losses"]) == 1 * 2 + 7 * 3  # each with its end-of-text
    assert found["bytes"] == 1 * 1 + 7 * 2
    assert found["loss"] == pytest.approx(plain["nats"] / 23, rel=1e-5)


def test_a_smaller_number_of_documents_is_the_first_of_them(tmp_path: Path, corpus: Path) -> None:
    path = save_speaker(tmp_path / "m.safetensors")
    found = perplexity(path, PerplexityOptions(corpus=str(corpus), split="train", documents=2))
    plain = token_by_token(path, list(open_corpus(str(corpus)).documents("train"))[:2], CONTEXT, CONTEXT)
    assert (found["documents"], found["targets"]) == (2, len(plain["losses"]))
    assert found["loss"] == pytest.approx(plain["nats"] / found["targets"], rel=1e-5)


def test_the_command_says_shows_and_writes_the_same_numbers(
    proctool: Callable[..., Said], tmp_path: Path, corpus: Path
) -> None:
    save_speaker(tmp_path / "m.safetensors")
    said = proctool(
        "eval", "perplexity", "m.safetensors", "--corpus", corpus, "--split", "train", "--per-position", "at.csv",
        "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert f"loss {found['loss']:.4f} (nats per token)" in said.err
    assert f"{found['bits_per_byte']:.4f} bits per byte" in said.err
    for shown in ("tokens read before: 2-3", "copyable (n = 3)", "not copyable (n = 2)"):
        assert shown in said.err
    assert "in-context-learning" not in said.err  # a window of 48 tokens is too short
    with open(tmp_path / "at.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["position"]) for row in rows] == list(range(1, CONTEXT + 1))
    assert [int(row["targets"]) for row in rows] == found["by_position"]["targets"]
    total = sum(int(row["targets"]) * float(row["loss"]) for row in rows)
    assert total / found["targets"] == pytest.approx(found["loss"])
    assert not found["trained_on"]


def test_apart_from_compares_contents(proctool: Callable[..., Said], tmp_path: Path, corpus: Path) -> None:
    save_speaker(tmp_path / "m.safetensors")
    (tmp_path / "copies").mkdir()
    for number, text in enumerate((TEXTS[1], TEXTS[4], "Something else.")):
        (tmp_path / "copies" / f"{number}.txt").write_text(text, "utf-8")
    command = ("eval", "perplexity", "m.safetensors", "--corpus", corpus, "--split")
    said = proctool(*command, "train", "--apart-from", "copies")
    assert said.code == 1
    assert (
        f"2 of {len(TEXTS)} different documents in its train split are also in the train split of copies" in said.line
    )
    # By their contents the splits of one corpus are apart.
    assert proctool(*command, "validation", "--apart-from", corpus).code == 0


def test_what_cannot_be_measured_is_one_line(proctool: Callable[..., Said], tmp_path: Path, corpus: Path) -> None:
    save_speaker(tmp_path / "m.safetensors")
    save_speaker(tmp_path / "warm.safetensors", metadata={"task": "set"})
    train_bpe(open_corpus(str(corpus)), 280, tmp_path / "bpe")
    (tmp_path / "one.txt").write_text("One document, which is for training.")
    on = ("--corpus", corpus, "--split", "train")
    for model, arguments, message in [
        ("m.safetensors", ("--corpus", "one.txt"), "corpus one.txt: its validation split has no document"),
        ("m.safetensors", ("--corpus", corpus, "--split", "test"), 'has no split "test"; it has train, validation'),
        (
            "m.safetensors",
            (*on, "--context", CONTEXT + 1),
            f"of 49 tokens does not fit the model's context of {CONTEXT} tokens",
        ),
        ("m.safetensors", (*on, "--context", 8, "--stride", 9), "stride = 9: longer than the context of 8"),
        ("m.safetensors", (*on, "--tokenizer", "bpe"), "its vocabulary of 257 is too small for the tokenizer bpe"),
        ("m.safetensors", (*on, "--documents", 0), "documents = 0: must be at least 1"),
        ("m.safetensors", (*on, "--per-position", "no/at.csv"), "the folder"),
        ("m.safetensors", ("--corpus", "nothing"), 'no corpus, file or folder "nothing"'),
        ("m.safetensors", (*on, "--apart-from", "nowhere.txt"), "nowhere.txt"),
        ("warm.safetensors", on, "has no tokenizer"),
        ("gone.safetensors", on, "no such file"),
    ]:
        said = proctool("eval", "perplexity", model, *arguments)
        assert said.code == 1, (arguments, said.err)
        assert message in said.line


def test_a_model_that_loses_all_measure_is_one_line(
    proctool: Callable[..., Said], tmp_path: Path, corpus: Path
) -> None:
    model = build_model(model_config("1x2x16", vocab_size=257, context=CONTEXT, eos_id=256), 0)
    on = ("--corpus", corpus, "--split", "train", "--json")
    for name, scale in (("certain", 1e4), ("wild", 1e30)):
        with torch.no_grad():
            model.transformer.ln_f.bias.fill_(scale)
            model.transformer.wte.weight.copy_(torch.linspace(-1, 1, 257)[:, None].expand(257, 16) * scale)
        save_model(tmp_path / f"{name}.safetensors", model, {"tokenizer": "bytes"})
    found = json.loads(proctool("eval", "perplexity", "certain.safetensors", *on).out)
    assert found["loss"] > 1000
    assert found["perplexity"] is None  # more than a number can say
    said = proctool("eval", "perplexity", "wild.safetensors", *on)
    assert said.code == 1
    assert "wild.safetensors: the loss is not finite" in said.line
