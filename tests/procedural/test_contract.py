"""What every registered task promises, whatever it is: one loop over the registry."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest

from proctool.errors import OptionError
from proctool.procedural.contract import RULES, generator
from proctool.procedural.controls import CONTROLS, control
from proctool.procedural.mixture import Mixture, parse_tasks
from proctool.procedural.registry import Task, build_task, parse_spec, tasks
from proctool.procedural.render import render, spelling
from proctool.procedural.samples import Samples
from proctool.procedural.streams import BLOCK, SPLITS, Stream, content_hash

NAMES = sorted(tasks())


def small(name: str) -> Task:
    """Little enough to make some blocks of."""
    quicker = {"per_rule": 256, "length": 20, "complexity": 0.1} if name == "nca" else {}
    return build_task(name, quicker, preset="small")


def composed() -> list[Task]:
    few = [small(name) for name in ("set", "dyck", "haystack")]
    mixture = Mixture(tuple(few), (0.5, 0.25, 2.0))
    return [mixture, *(control(name, task) for name in CONTROLS for task in (mixture, small("stack")))]


EVERY = [small(name) for name in NAMES] + composed()
every_task = pytest.mark.parametrize("task", EVERY, ids=lambda task: task.spec)
every_name = pytest.mark.parametrize("name", NAMES)


IN_PROCESS = {name: rule for name, rule in RULES.items() if name != "processes"}  # golden hashes hold that one


@pytest.mark.parametrize("rule", IN_PROCESS)
@every_task
def test_every_task_keeps_every_rule(task: Task, rule: str) -> None:
    assert list(IN_PROCESS[rule](task)) == []


SMALL_SPACES = [
    *(
        "stack:inputs=4,symbols=3",
        "stack:inputs=6,symbols=4",
        "dyck:k=2,length=6,p_open=0.7",
        "shuffle-dyck:k=2,length=6",
    ),
    *("haystack:pairs=2,vocab=8", "dfa:states=1,symbols=2,branches=2,mean=2,length=4", "mqar:pairs=1,length=6,vocab=6"),
    *("dfa:states=3,symbols=3,branches=1,mean=4,length=5", "set:inputs=2,symbols=3", "delete:inputs=2,symbols=3"),
    *("select:inputs=2,symbols=3", "count:inputs=3,symbols=3", "replace:inputs=2,symbols=3", "ww:half=2,symbols=3"),
    *("union:inputs=4,symbols=3", "eca:width=5", "addition:digits=1", "modular:modulus=3", "sorting:items=2,symbols=3"),
    *("shuffle(sorting:items=2,symbols=3)", "sorting:items=2,symbols=3*0.25 + ww:half=2,symbols=3*0.75"),
]


@pytest.mark.parametrize("spec", SMALL_SPACES)
def test_entropy_bounds_the_likeliest_sample(spec: str) -> None:
    """No sample comes up more often than its bound allows, where few are possible."""
    assert list(RULES["entropy"](parse_tasks(spec))) == []


@pytest.mark.parametrize(
    "spec",
    [
        "stack:inputs=3,symbols=3",
        "stack:inputs=4,symbols=4",
        "stack:inputs=6,symbols=3",
        "modular:modulus=3",
        "eca:width=4",
    ],
)
def test_entropy_is_exact_where_it_can_be(spec: str) -> None:
    hashes = content_hash(parse_tasks(spec).sample(generator(), 20_000).tokens)
    most = np.unique(hashes, return_counts=True)[1].max() / 20_000
    assert abs(most - 2.0 ** -parse_tasks(spec).min_entropy_bits) < 0.02


@every_name
def test_every_preset_builds_and_sources_are_named(name: str) -> None:
    cls = tasks()[name]
    assert cls().description.endswith(".")
    assert "Source:" in (cls.__doc__ or "")
    assert "small" in cls.presets
    for preset in cls.presets:
        assert parse_spec(f"{name}:{preset}") == build_task(name, preset=preset)
    assert parse_spec({"name": name, "preset": "small"}) == build_task(name, preset="small")


@every_name
def test_drawings_match_the_samples(name: str) -> None:
    """A class's docstring draws as many tokens as targets, and states the length it has."""
    cls = tasks()[name]
    drawn = re.search(r"tokens +(.*)\n +targets +(.*)\n", cls.__doc__ or "")
    assert drawn, "draw tokens and targets"
    tokens = drawn[1].partition("      (")[0].split()
    assert len(tokens) == len(drawn[2].split())
    formula = drawn[1].partition("(n, ")[2].partition("), ")[0].removesuffix(")")
    if drawn[1].endswith(")") or "), here" in drawn[1]:
        for task in (cls(), small(name)):
            assert eval(formula, {}, {**task.options, "length": task.length}) == task.length


@every_name
def test_tasks_fit_a_length(name: str) -> None:
    """`with_length` gives the largest version that fits."""
    task = small(name)
    if name == "nca":
        return
    for length in (task.length, task.length + 1, 3 * task.length):
        fitted = task.with_length(length)
        assert length / 2 <= fitted.length <= length
    with pytest.raises(OptionError, match=task.size_option):
        task.with_length(0)


def test_composed_tasks_grow_with_their_parts() -> None:
    mixture = parse_tasks("set:small*0.5 + union:small*0.5")
    assert mixture.with_length(42) == parse_tasks("set:small*0.5 + union:small*0.5")
    assert mixture.resized(8) == parse_tasks("set:symbols=21,inputs=8*0.5 + union:symbols=21,inputs=8*0.5")
    assert control("shuffle", mixture).resized(8) == control("shuffle", mixture.resized(8))


@pytest.mark.parametrize("spec", ["haystack", "modular", "dyck:k=1,length=40", "eca:width=12", "unigram(modular)"])
def test_splits_of_small_spaces_are_disjoint(spec: str) -> None:
    task = parse_tasks(spec)
    rows = {split: {row.tobytes() for row in Stream(task, 5, split).read(0, BLOCK).tokens} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not rows[one] & rows[other]


def test_a_space_too_small_to_split_is_an_error() -> None:
    task = parse_tasks("shuffle-dyck:k=1,length=4,max_depth=1")  # ()() and nothing else
    told = []
    for split in SPLITS:
        try:
            Stream(task, 0, split).read(0, 1)
        except OptionError as error:
            told.append(str(error))
    assert len(told) == 2
    assert all(task.spec in message for message in told)


@every_task
def test_rendering_shows_every_kind_of_token(task: Task) -> None:
    words = spelling(task)
    assert len(words) == task.vocab_size
    assert all(words)
    from rich.console import Console

    console = Console(width=200, record=True, quiet=True)
    with console.capture() as captured:
        console.print(render(task, Stream(task).read(0, 2) if task.name != "nca" else task.sample(generator(), 2)))
    assert len(captured.get().strip()) > 1 or console.quiet


BAD = [
    ("dyck:k=0", "k"),
    ("dyck:length=7", "length"),
    ("dyck:length=0", "length"),
    ("dyck:length=200000", "length"),
    ("dyck:p_open=1.5", "p_open"),
    ("dyck:k=40000", "k"),
    ("shuffle-dyck:max_depth=0", "max_depth"),
    ("set:inputs=0", "inputs"),
    ("set:symbols=1", "symbols"),
    ("set:symbols=70000", "symbols"),
    ("set:inputs=100k", "inputs"),
    ("union:inputs=3", "inputs"),
    ("stack:symbols=2", "symbols"),
    ("replace:symbols=2", "symbols"),
    ("ww:half=0", "half"),
    ("ww:symbols=0", "symbols"),
    ("eca:rule=256", "rule"),
    ("eca:rule=-1", "rule"),
    ("eca:patch=5", "patch"),
    ("eca:patch=16", "patch"),
    ("eca:steps=0", "steps"),
    ("nca:grid=5", "grid"),
    ("nca:states=1", "states"),
    ("nca:states=20", "states"),
    ("nca:per_rule=0", "per_rule"),
    ("nca:complexity=1", "complexity"),
    ("nca:most_complexity=0.5", "most_complexity"),
    ("nca:temperature=0", "temperature"),
    ("nca:dropped=-1", "dropped"),
    ("dfa:branches=19", "branches"),
    ("dfa:states=0", "states"),
    ("life:rule=B9/S", "rule"),
    ("life:rule=23/3", "rule"),
    ("life:states=257", "states"),
    ("life:width=2", "width"),
    ("life:steps=10k", "steps"),
    ("markov:order=5", "order"),
    ("markov:branches=0", "branches"),
    ("pcfg:branching=3", "branching"),
    ("pcfg:rules=1", "rules"),
    ("pcfg:grammar=-1", "grammar"),
    ("rnn:cell=mlp", "cell"),
    ("rnn:temperature=0", "temperature"),
    ("rnn:radius=0", "radius"),
    ("derivations:size=2", "size"),
    ("derivations:lines=0", "lines"),
    ("induct:vocab=67", "vocab"),
    ("abduct:most=0", "most"),
    ("haystack:pairs=65", "pairs"),
    ("haystack:keys=3", "keys"),
    ("haystack:keys=65", "keys"),
    ("haystack:vocab=3", "vocab"),
    ("addition:digits=0", "digits"),
    ("addition:scoring=none", "scoring"),
    ("multiplication:digits=5000", "digits"),
    ("modular:modulus=1", "modulus"),
    ("modular:terms=1", "terms"),
    ("modular:operation=divide", "operation"),
    ("sorting:items=0", "items"),
    ("mqar:length=63", "length"),
    ("mqar:pairs=65", "length"),
    ("mqar:vocab=30", "vocab"),
    ("mqar:power=0", "power"),
    ("set:k=3", "k"),
    ("set:inputs=many", "inputs"),
    ("set:inputs=2.5", "inputs"),
    ("set:large", "large"),
    ("setl", "setl"),
    ("set*0", "weight"),
    ("set*-1 + union*2", "weight"),
    ("set*much", "weight"),
    ("shufle(set)", "shufle"),
    ("", "no task"),
    ("set + ", "unknown task"),
]


@pytest.mark.parametrize(("spec", "named"), BAD)
def test_bad_options_are_one_line_that_names_them(spec: str, named: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_tasks(spec)
    message = str(caught.value)
    assert re.search(rf"\b{re.escape(named)}\b", message), message
    assert "\n" not in message


def test_mixtures_share_ids_by_role() -> None:
    mixture = parse_tasks("set:small*1 + union:small*1 + dyck:small*2")
    assert isinstance(mixture, Mixture)
    assert list(mixture.layout) == ["pop", "symbol", "separator", "pad", "open", "close"]
    assert mixture.vocab_size == 23 + 32
    assert mixture.length == 128
    samples = mixture.sample(generator(), 4000)
    is_dyck = np.isin(samples.tokens[:, 0], list(mixture.layout["open"]))
    assert abs(is_dyck.mean() - 0.5) < 0.04
    dyck = small("dyck")
    back = Samples(samples.tokens[is_dyck] - mixture.layout["open"].start, samples.targets[is_dyck])
    from tests.procedural.checkers import CHECKERS

    for tokens, targets in zip(back.tokens.tolist(), back.targets.tolist(), strict=True):
        CHECKERS["dyck"](dyck.options, tokens, targets)
    others = samples.tokens[~is_dyck]
    assert (others[:, 42:] == mixture.layout["pad"].start).all()
    assert not samples.targets[~is_dyck][:, 42:].any()


@pytest.mark.parametrize("spec", ["set:symbols=9,inputs=4 + ww:symbols=5", "ww:symbols=5 + set:symbols=9,inputs=4"])
def test_mixtures_have_room_for_the_largest_of_each_part(spec: str) -> None:
    mixture = parse_tasks(spec)
    assert len(mixture.layout["symbol"]) == 8
    assert mixture.vocab_size == 1 + 8 + 1 + 1
    assert mixture.sample(generator(), 500).tokens.max() < mixture.vocab_size


def test_shuffling_keeps_each_samples_tokens_and_targets() -> None:
    task = small("set")
    shuffled, plain = control("shuffle", task).sample(generator(8), 500), task.sample(generator(8), 500)
    assert np.array_equal(np.sort(shuffled.tokens, axis=1), np.sort(plain.tokens, axis=1))
    assert np.array_equal(shuffled.targets, plain.targets)
    pad = task.layout["pad"].start
    assert np.array_equal(shuffled.tokens == pad, plain.tokens == pad)
    moved = (shuffled.tokens != plain.tokens)[plain.tokens != pad]
    assert moved.mean() > 0.8
    # Any place is as likely for the separator as any other that is not padding.
    separators = np.nonzero(shuffled.tokens == task.layout["separator"].start)[1]
    assert abs(separators.mean() - (plain.tokens != pad).sum(axis=1).mean() / 2 + 0.5) < 1.5


def test_unigram_keeps_frequencies_and_nothing_else() -> None:
    task = small("dyck")
    drawn = control("unigram", task).sample(generator(9), 2000)
    assert np.array_equal(drawn.targets, task.sample(generator(1), 2000).targets)
    frequencies = np.bincount(drawn.tokens.ravel(), minlength=task.vocab_size) / drawn.tokens.size
    assert abs(frequencies[:-1] - 1 / 32).max() < 0.002
    after_open = drawn.tokens[:, 1:][drawn.tokens[:, :-1] == 0]
    assert abs((after_open == 16).mean() - 1 / 32) < 0.01


@pytest.mark.parametrize("spec", ["set:small", "haystack:small", "set:small*0.5 + ww:small*1.5"])
def test_random_keeps_lengths_and_targets_and_nothing_else(spec: str) -> None:
    task = parse_tasks(spec)
    drawn, plain = control("random", task).sample(generator(9), 4000), task.sample(generator(9), 4000)
    pad = task.layout["pad"].start
    assert np.array_equal(drawn.targets, plain.targets)
    assert np.array_equal(drawn.tokens == pad, plain.tokens == pad)
    counts = np.bincount(drawn.tokens[drawn.tokens != pad], minlength=task.vocab_size)
    expected = counts.sum() / (task.vocab_size - 1)
    assert abs(np.delete(counts, pad) - expected).max() < 6 * expected**0.5
    assert parse_tasks(f"random({spec})").spec == f"random({task.spec})"


def test_third_parties_register_through_an_entry_point(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A package that is installed beside proctool, and nothing in proctool, brings the task `alternating`."""
    site = tmp_path_factory.mktemp("site")
    (site / "third_party.py").write_text(THIRD_PARTY)
    information = site / "third_party-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[proctool.tasks]\nalternating = third_party\n")
    program = (
        "from proctool.procedural.mixture import parse_tasks\n"
        "from proctool.procedural.streams import Stream\n"
        "mixed = parse_tasks('shuffle(alternating:length=6*1 + set:small*1)')\n"
        "print(parse_tasks('alternating:length=6').sample(None, 1).tokens.tolist())\n"
        "print(Stream(mixed).read(0, 3).tokens.shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[[0, 1, 0, 1, 0, 1]]", "(3, 41)"]


THIRD_PARTY = '''
from dataclasses import dataclass
import numpy as np
from proctool.procedural.registry import Task, require, task
from proctool.procedural.samples import Samples

@task("alternating")
@dataclass(frozen=True)
class Alternating(Task):
    """Two symbols in turn."""

    length: int = 8
    """Tokens in one sample."""

    size_option = "length"

    def __post_init__(self):
        require(self.length >= 2, self, "length", "at least 2 are needed")

    @property
    def layout(self):
        return {"symbol": range(2)}

    @property
    def min_entropy_bits(self):
        return 0.0

    def sample(self, rng, n):
        tokens = np.tile(np.arange(self.length, dtype=self.dtype) % 2, (n, 1))
        return Samples(tokens, np.ones(tokens.shape, bool))
'''


def test_registering_imports_neither_torch_nor_rich() -> None:
    program = (
        "import sys; from proctool.procedural.registry import tasks; tasks(); import proctool.procedural.mixture; "
        "assert not {'torch', 'rich', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
