"""DeepMind Mathematics: greedy answers as without a cache, right in every character or wrong, module by module."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proctool.corpora.tokenizers import CharacterTokenizer
from proctool.evaluation import mathematics as measured
from proctool.evaluation.eval_model import open_subject
from proctool.evaluation.mathematics import Question, answer_all, greedy, mathematics, read_questions
from proctool.evaluation.options import MathematicsOptions
from tests.conftest import Said
from tests.evaluation.speakers import save_speaker
from tests.models.tiny import EACH_FAMILY, VOCAB, tiny

CHARACTERS = CharacterTokenizer()


def plain(model: torch.nn.Module, prompt: list[int], most: int, eos_id: int) -> list[int]:
    """All that has been written is read again for each token, of one question at a time."""
    written: list[int] = []
    while len(written) < most and eos_id not in written:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + written]), use_cache=False).logits
        written.append(int(logits[0, -1].argmax()))
    return written


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_a_cache_changes_no_token(family: str) -> None:
    model = tiny(family).eval()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    prompts = np.random.default_rng(0).integers(0, VOCAB, (6, 4)).astype(np.uint16)
    most = np.array([1, 3, 8, 5, 8, 8])
    free = [plain(model, prompt, 8, -1) for prompt in prompts.tolist()]

    def ended(eos_id: int) -> list[list[int]]:
        ends = [row.index(eos_id) + 1 if eos_id in row else 8 for row in free]
        return [row[: min(end, limit)] for row, end, limit in zip(free, ends, most.tolist(), strict=True)]

    eos_id = max(range(VOCAB), key=lambda each: len(set(map(len, ended(each)))))
    assert len(set(map(len, ended(eos_id)))) >= 4  # rows that end of themselves, and rows that are cut
    assert greedy(model, prompts, most, eos_id) == ended(eos_id)


def test_questions_of_all_lengths_are_answered_as_alone(tmp_path: Path) -> None:
    path = save_speaker(tmp_path / "m.safetensors", tokenizer=CHARACTERS)
    subject = open_subject(path, None)
    model = subject.saved.model().eval()
    asked = [Question("interpolate", "m", f"{'9' * (n % 5)}{n}?\n", "1" * (1 + n % 7)) for n in range(23)]
    expected: list[str | None] = []
    for each in asked:
        prompt = CHARACTERS.encode_batch([each.question])[0].tolist()
        written = plain(model, prompt, len(each.answer) + 1, CHARACTERS.eos_id)
        expected.append(CHARACTERS.decode(written[:-1]) if written[-1] == CHARACTERS.eos_id else None)
    told: list[int] = []
    for batch_size in (1, 4, 64):
        assert answer_all(subject, asked, batch_size, lambda done, of: told.append(done)) == expected
    assert told[-1] == len(asked)


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], Path]:
    """A saved model which, asked a question, writes what the script says, with $ for end-of-text, and a 0 for ever."""
    path = save_speaker(tmp_path / "m.safetensors", tokenizer=CHARACTERS)

    def answering(script: Mapping[str, str]) -> Path:
        def written(model: Any, prompts: Any, most: Any, eos_id: int, vocab_size: int) -> list[list[int]]:
            said = []
            for prompt, limit in zip(prompts, most.tolist(), strict=True):
                text, dollar, _ = script[CHARACTERS.decode(prompt).rstrip("\n")].partition("$")
                ids = CHARACTERS.encode_batch([text])[0].tolist()
                said.append([*ids, *([eos_id] if dollar else 99 * CHARACTERS.encode_batch(["0"])[0].tolist())][:limit])
            return said

        monkeypatch.setattr(measured, "greedy", written)
        return path

    return answering


@pytest.mark.parametrize(
    ("answer", "written", "right"),
    [
        ("12", "12$", True),
        ("12", "13$", False),  # the last character counts, which the official code cuts off
        ("12", "1$", False),
        ("12", "$", False),
        ("12", "12", False),  # it goes on
        ("12", "120$", False),
        ("12", " 12$", False),
        ("12", "12 $", False),
        ("7", "7$", True),
        ("7", "8$", False),
        ("-1/3", "-1/3$", True),
    ],
)
def test_an_answer_is_right_in_all_characters_and_in_its_end(
    tmp_path: Path, scripted: Callable[[Mapping[str, str]], Path], answer: str, written: str, right: bool
) -> None:
    write_tree(tmp_path / "tree", {"interpolate": {"m": [("What?", answer), ("Another?", "long answer")]}})
    model = scripted({"What?": written, "Another?": "long answer$"})
    module, whole = mathematics(model, MathematicsOptions(corpus=f"mathematics:{tmp_path / 'tree'}"))
    assert module["accuracy"] == whole["accuracy"] == (1 + right) / 2


def write_tree(root: Path, levels: Mapping[str, Mapping[str, list[tuple[str, str]]]]) -> Path:
    for level, modules in {"train-easy": {"m": [("Trained?", "1")]}, **levels}.items():
        (root / level).mkdir(parents=True, exist_ok=True)
        for module, pairs in modules.items():
            (root / level / f"{module}.txt").write_text("".join(f"{asked}\n{said}\n" for asked, said in pairs))
    return root


SUMS = [(f"What is {n} + {n}?", str(2 * n)) for n in range(8)]
GCDS = [(f"Greatest common divisor of {n} and {n}?", str(n)) for n in range(10, 14)]
BIG = [(f"Large: {n} + {n}?", str(2 * n)) for n in range(1000, 1002)]
TREE = {
    "interpolate": {"arithmetic__sums": SUMS, "numbers__gcd": GCDS},
    "extrapolate": {"arithmetic__sums_big": BIG},
}


def test_modules_and_splits_have_lines_of_their_own(
    proctool: Callable[..., Said], tmp_path: Path, scripted: Callable[[Mapping[str, str]], Path]
) -> None:
    write_tree(tmp_path / "tree", TREE)
    wrong = {SUMS[0][0], SUMS[5][0], BIG[1][0]}
    model = scripted({asked: "x$" if asked in wrong else f"{said}$" for asked, said in SUMS + GCDS + BIG})
    said = proctool("eval", "mathematics", model, "--corpus", "mathematics:tree", "--split", "both", "--json")
    assert said.code == 0, said.err
    found = [json.loads(line) for line in said.out.splitlines()]
    keys = ("event", "split", "module", "questions", "accuracy")
    assert [tuple(line.get(key) for key in keys) for line in found] == [
        ("mathematics-module", "interpolate", "arithmetic__sums", 8, 6 / 8),
        ("mathematics-module", "interpolate", "numbers__gcd", 4, 1),
        ("mathematics", "interpolate", None, 12, 10 / 12),
        ("mathematics-module", "extrapolate", "arithmetic__sums_big", 2, 1 / 2),
        ("mathematics", "extrapolate", None, 2, 1 / 2),
    ]  # fmt: skip
    assert found[2]["mean_over_modules"] == (6 / 8 + 1) / 2
    assert found[2]["questions_sha256"] != found[4]["questions_sha256"]
    for shown in (
        "arithmetic__sums",
        "75.0%",
        "interpolate: accuracy 83.33% over 12 questions, mean over modules 87.50%",
    ):
        assert shown in said.err

    first = MathematicsOptions(corpus="mathematics:tree", questions=3, modules=("sums", "gcd"))
    assert [(line.get("module"), line["questions"], line["accuracy"]) for line in mathematics(model, first)] == [
        ("arithmetic__sums", 3, 2 / 3),
        ("numbers__gcd", 3, 1),
        (None, 6, 5 / 6),
    ]
    some = dataclasses.replace(first, modules=("gcd",))
    assert {question.module for question in read_questions(some)} == {"numbers__gcd"}


def test_questions_made_on_the_spot_are_the_held_out_ones() -> None:
    pytest.importorskip("mathematics_dataset", reason="needs the extra [math]")
    from proctool.corpora.catalog import open_corpus

    modules = ("arithmetic__add_or_sub", "numbers__gcd")
    found = list(read_questions(MathematicsOptions(questions=2, modules=modules, split="both")))
    assert {(each.split, each.module) for each in found} == {
        ("interpolate", "arithmetic__add_or_sub"), ("interpolate", "arithmetic__add_or_sub_in_base"),
        ("interpolate", "numbers__gcd"), ("interpolate", "numbers__gcd_composed"),
        ("extrapolate", "arithmetic__add_or_sub_big"),
    }  # fmt: skip
    assert len(found) == 10
    more = MathematicsOptions(corpus="mathematics:3000", questions=2, modules=modules, split="both")
    assert list(read_questions(more)) == found  # a corpus of more questions for training holds out the same
    held_out = open_corpus("mathematics").documents("validation")
    (first,) = (each for each in found if each.module == modules[0] and each is found[0])
    assert any(
        (document.content, document.answer) == (first.question.encode(), first.answer.encode()) for document in held_out
    )


def test_what_cannot_be_asked_is_one_line(proctool: Callable[..., Said], tmp_path: Path) -> None:
    save_speaker(tmp_path / "m.safetensors", tokenizer=CHARACTERS)
    save_speaker(tmp_path / "warm.safetensors", metadata={"task": "set"})
    # The longest question with its answer: 38 + 2. The end-of-text that closes it is never read.
    save_speaker(tmp_path / "short.safetensors", tokenizer=CHARACTERS, context=39)
    write_tree(tmp_path / "tree", TREE)
    write_tree(tmp_path / "easy", {"interpolate": {"arithmetic__sums": SUMS}})
    write_tree(tmp_path / "half", {"interpolate": {"arithmetic__sums": [*SUMS, ("And now?", "")]}})
    (tmp_path / "empty").mkdir()
    for model, corpus, arguments, message in [
        (
            "m",
            "tree",
            ("--modules", "numbers__gdc"),
            'no interpolate module named numbers__gdc (did you mean "numbers__gcd"?)',
        ),
        ("m", "tree", ("--modules", "sums,calculus"), "no interpolate module named calculus"),
        ("m", "tree", ("--modules", "big"), "no interpolate module named big"),  # it stands in extrapolate
        ("m", "easy", ("--split", "extrapolate"), "no extrapolate questions"),
        ("m", "easy", ("--split", "both"), "no extrapolate questions"),
        ("m", "half", (), "a question without an answer"),
        ("m", "empty", (), "give the top folder of the official files"),
        ("m", "tree", ("--questions", 0), "questions = 0: must be at least 1"),
        ("m", "tree", ("--split", "test"), None),
        ("short", "tree", (), "of 40 tokens does not fit the model's context of 39 tokens; choose other --modules"),
        ("warm", "tree", (), "has no tokenizer"),
        ("gone", "tree", (), "no such file"),
    ]:
        said = proctool("eval", "mathematics", f"{model}.safetensors", "--corpus", f"mathematics:{corpus}", *arguments)
        if message is None:
            assert said.code == 2
            continue
        assert said.code == 1, (arguments, said.err)
        assert message in said.line
    save_speaker(tmp_path / "fits.safetensors", tokenizer=CHARACTERS, context=40)
    assert proctool("eval", "mathematics", "fits.safetensors", "--corpus", "mathematics:tree").code == 0
    said = proctool("eval", "mathematics", "m.safetensors", "--corpus", "python")
    assert (said.code, "python: not a mathematics" in said.line) == (1, True)
