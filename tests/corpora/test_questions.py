import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("mathematics_dataset", reason="needs the extra [math]")

from proctool.corpora import load_tokenizer, open_corpus, open_store, questions
from proctool.errors import CorpusError

SAMPLED = ["algebra__linear_1d", "numbers__is_prime_composed", "polynomials__expand", "comparison__sort_composed"]


def test_there_are_56_modules_at_every_level():
    found = questions.modules()
    assert {level: len(modules) for level, modules in found.items()} == {
        "train-easy": 56, "train-medium": 56, "train-hard": 56, "interpolate": 56, "extrapolate": 15,
    }  # fmt: skip


def test_mending_leaves_numpy_and_the_installed_files_alone():
    questions.modules()
    assert "object" not in vars(np)
    assert not hasattr(np.ndarray, "itemset")
    import mathematics_dataset.sample.polynomials as mended

    with open(mended.__file__) as file:
        assert "dtype=np.object" in file.read()


def test_the_global_generators_are_given_back():
    import random

    random.seed(1)
    expected = random.random()
    random.seed(1)
    questions.draw("train-easy", SAMPLED[0], 0, 2)
    assert random.random() == expected


def digest(order):
    return {
        module: hashlib.sha256(repr(questions.draw("train-hard", module, 3, 4)).encode()).hexdigest()
        for module in order
    }


def test_questions_do_not_depend_on_what_was_drawn_before():
    assert digest(SAMPLED) == digest(SAMPLED[::-1])


def test_numbers_levels_and_modules_have_questions_of_their_own():
    drawn = [
        questions.draw(level, module, number, 3)
        for level in ("train-easy", "train-hard")
        for module in SAMPLED[:2]
        for number in (0, 1)
    ]
    assert len({repr(each) for each in drawn}) == len(drawn)


@pytest.mark.slow
def test_questions_are_the_same_in_every_process():
    code = f"from tests.corpora.test_questions import digest; print(sorted(digest({SAMPLED}).items()))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {f"{sorted(digest(SAMPLED).items())}\n".encode()}


@pytest.mark.slow
def test_all_56_modules_make_questions():
    for level in questions.LEVELS:
        for module in questions.modules()[level]:
            for question, answer in questions.draw(level, module, 0, 2):
                assert 0 < len(question) <= questions.MAX_QUESTION
                assert 0 < len(answer) <= questions.MAX_ANSWER
                assert (question + answer).isascii()


def test_drawing_without_replacement_gives_the_packages_own_probabilities():
    from sympy import Rational

    questions.modules()
    from mathematics_dataset.util import probability

    def one_by_one(weights, sequences):
        total = 0
        for sequence in sequences:
            chance, left = 1, 1
            for number, thing in enumerate(sequence):
                weight = weights.get(thing, 0) if thing not in sequence[:number] else 0
                chance, left = chance * weight / left if weight else 0, left - weight
                if not chance:
                    break
            total += chance
        return total

    things = {"a": 1, "b": 1, "c": 2, "d": 3}
    space = probability.SampleWithoutReplacementSpace(things, 3)
    weights = {thing: Rational(weight, 7) for thing, weight in things.items()}
    every = list(itertools.product("abcde", repeat=3))
    for event in (every, every[::7], [("a", "b", "c"), ("c", "b", "a")], [("a", "a", "b")], [("e", "a", "b")], []):
        assert space.probability(probability.SequenceEvent(event)) == one_by_one(weights, event)
    assert space.probability(probability.SequenceEvent(every)) == 1


def test_a_module_whose_problems_are_too_long_ends(monkeypatch):
    monkeypatch.setattr(questions, "MAX_ANSWER", 0)
    assert questions.draw("train-easy", SAMPLED[0], 0, 2) == []


def test_unknown_modules_are_named():
    with pytest.raises(CorpusError, match="no module algebra__magic at level train-easy"):
        questions.draw("train-easy", "algebra__magic", 0, 1)


def test_without_the_package_the_extra_is_named(monkeypatch):
    questions.modules.cache_clear()
    for name in [name for name in sys.modules if name.startswith("mathematics_dataset")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    sys.path_importer_cache.clear()
    with pytest.raises(CorpusError, match=r"pip install 'proctool\[math\]'"):
        questions.modules()
    questions.modules.cache_clear()


@pytest.mark.slow
def test_a_corpus_made_on_the_spot_holds_all_modules(monkeypatch):
    monkeypatch.setattr(questions, "PER_PART", 1)
    from proctool.corpora import mathematics

    monkeypatch.setattr(mathematics, "PER_PART", 1)
    monkeypatch.setattr(mathematics, "_OWN_PARTS", 1)
    corpus = open_corpus("mathematics:3")
    store = open_store(corpus, load_tokenizer("characters"), 256)
    assert store.splits == ("train", "validation", "extrapolate")
    assert store.count("validation", "documents") == 56
    assert 14 <= store.count("extrapolate", "documents") <= 15  # one of sort_more is not always found
    assert len(store.split("extrapolate"))
    assert 150 <= store.count("train", "documents") <= 168  # less those that stand in validation
