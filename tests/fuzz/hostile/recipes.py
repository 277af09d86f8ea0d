"""YAML, as recipes."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.hostile.cases import MIB, RUN_ME, case


def _recipe(folder: Path, text: str | bytes) -> list[str]:
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ["run", str(path), "--dry-run"]


@case
def a_billion_laughs(folder: Path) -> list[str]:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return _recipe(folder, "\n".join([*lines, "name: *a11"]))


@case
def an_alias_of_itself(folder: Path) -> list[str]:
    return _recipe(folder, "name: &a [*a]\n")


@case
def merges_of_merges(folder: Path) -> list[str]:
    lines = ["a0: &a0 {k0: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}], k{n}: 1}}" for n in range(1, 9)]
    return _recipe(folder, "\n".join(lines))


@case
def yaml_nested_beyond_reason(folder: Path) -> list[str]:
    return _recipe(folder, "name: " + "[" * 100_000)


@case
def yaml_blocks_nested_beyond_reason(folder: Path) -> list[str]:
    return _recipe(folder, "\n".join(" " * n + f"k{n}:" for n in range(1500)))


@case
def yaml_of_twenty_megabytes(folder: Path) -> list[str]:
    return _recipe(folder, "name: " + "x" * (20 * MIB))


@case
def yaml_that_builds_an_object(folder: Path) -> list[str]:
    return _recipe(folder, f'name: !!python/object/apply:builtins.exec ["{RUN_ME.strip()}"]\n')


@case
def yaml_with_a_day_that_is_none(folder: Path) -> list[str]:
    return _recipe(folder, "name: 2024-13-45\n")


@case
def yaml_with_a_number_of_a_million_digits(folder: Path) -> list[str]:
    return _recipe(folder, "context: " + "9" * 1_000_000)


@case
def yaml_with_a_zero_byte_in_a_path(folder: Path) -> list[str]:
    arms = 'arms: {cold: {}, warm: {init: "a\\0b"}}'
    return _recipe(folder, f'name: x\nmodel: pico\ncorpus: "a\\0b"\n{arms}\n')


@case
def a_recipe_with_numbers_beyond_counting(folder: Path) -> list[str]:
    return _recipe(folder, "name: x\nmodel: pico\ncorpus: python\npretrain: {steps: 1e308k}\narms: {cold: {}}\n")
