from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from proctool.errors import OptionError
from proctool.reporting import figures as figure_module
from proctool.reporting.experiment import load_experiment
from proctool.reporting.figures import figure_kinds, figures_available, write_figures
from proctool.reporting.page import page
from proctool.reporting.render import latex, markdown, terminal_tables, tidy_csv
from proctool.reporting.report import Report, build_report
from proctool.reporting.sheets import sheets
from tests.reporting.made import HOSTILE, Made, substitutive, training, two_arms

NASTY = "50 % of $x_1 & #2 {a}\\b ~^ [3] | \u4e2d \u00e9 \u2212 <b>"
"""Everything that LaTeX minds."""


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return build_report(load_experiment(two_arms(tmp_path / "tiny")))


@pytest.fixture
def exchange(tmp_path: Path) -> Report:
    return build_report(load_experiment(substitutive(tmp_path / "exchange")))


def test_tables_have_a_cell_for_every_head(report: Report, exchange: Report) -> None:
    names = set()
    for each in (*sheets(report), *sheets(exchange)):
        names.add(each.name)
        assert all(len(row) == len(each.heads) for row in each.rows), each.name
    assert names == {"summary", "cost", "saved", "loss", "diagnostics", "substitution", "published"}


def test_markdown_is_well_formed(report: Report) -> None:
    text = markdown(report)
    for table in re.findall(r"(?:^\|.*\n?)+", text, flags=re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert HOSTILE not in text
    assert len(terminal_tables(report)) == 2


@pytest.mark.parametrize("room", [120, 80, 60, 40])
def test_a_narrow_terminal_loses_columns_and_no_characters(exchange: Report, room: int) -> None:
    console = Console(width=room, file=io.StringIO(), force_terminal=True, color_system=None)
    for table in terminal_tables(exchange, room):
        console.print(table)
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\N{HORIZONTAL ELLIPSIS}" not in out
    assert max(map(len, out.splitlines())) <= room
    assert ("not shown in this narrow terminal" in out) == (room < 80)
    assert "gain" in out


def by_part(root: Path, rows: int, recorded: tuple[str, ...]) -> Report:
    """Two arms with three seeds; `set` gains .5 nats on copyable tokens only and has an ICL score higher by .1."""
    made = Made(root)
    for seed in (0, 1, 2):
        for arm, less, icl in (("cold", 0.0, 0.2), ("set", 0.5 + 0.01 * (seed - 1), 0.3)):
            events = training()
            bands = [{"first": 1, "last": 1, "targets": 100, "loss": 3.0 + seed},
                     {"first": 64, "last": 127, "targets": 300, "loss": 2.0 + seed - less}]  # fmt: skip
            ngrams = [{"n": n, "copyable": {"targets": 100 // n, "loss": 1.0 + seed - less},
                       "other": {"targets": 300, "loss": 4.0 + seed}} for n in (2, 3)]  # fmt: skip
            parts = {"bands": bands, "ngrams": ngrams} | ({"icl_score": icl, "icl_rows": rows} if rows else {})
            induction = {"threshold": 0.5, "score": 0.6} | ({"step": 30 + seed} if arm == "set" else {})
            events[-1] |= {"loss_parts": parts, "induction": induction} if arm in recorded else {}
            made.measured(arm, seed, made.stage(f"{arm}{seed}", None, events), {})
    return build_report(load_experiment(made.write()))


@pytest.mark.parametrize("rows", [0, 8])
def test_where_the_loss_differs(tmp_path: Path, rows: int) -> None:
    report = by_part(tmp_path / "both", rows, ("cold", "set"))
    (sheet,) = (each for each in sheets(report) if each.name == "loss-parts")
    found = {(row[0], row[1]): dict(zip(sheet.heads, row, strict=True)) for row in sheet.rows}
    assert list(found) == [("cold", "loss"), ("set", "loss"), ("set", "gain")]
    gain = found["set", "gain"]
    assert gain["copyable (n=3)"] == gain["positions 64-127"] == "0.500 [0.475, 0.525]"  # t, sd .01, three seeds
    assert gain["other (n=3)"] == gain["position 1"] == "0.000 [0.000, 0.000]"
    assert gain["mean"].startswith("0.375 [")
    assert found["set", "loss"]["positions 64-127"].startswith("2.500 [")
    assert [each["induction step"] for each in found.values()] == ["never", "30-32", "\N{EN DASH}"]
    assert ("ICL score" in sheet.heads) == ("ICL score" in sheet.note) == bool(rows)
    assert gain.get("ICL score") == ("0.100 [0.100, 0.100]" if rows else None)
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None)
    for table in terminal_tables(report, 80):
        console.print(table)
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, out.splitlines())) <= 80
    assert "0.375" in out
    written = list(csv.DictReader(io.StringIO(tidy_csv(report))))
    (copied,) = (row for row in written if row["quantity"] == "gain, copyable (n=3)")
    assert float(copied["value"]) == pytest.approx(0.5)
    said = json.loads(json.dumps(report.as_json()))["loss_parts"]
    assert [(each["arm"], each["induction_steps"]) for each in said] == [("cold", [None] * 3), ("set", [30, 31, 32])]
    print(out, markdown(report))


@pytest.mark.parametrize("recorded", [(), ("cold",), ("set",)])
def test_runs_without_parts_have_no_table_of_them(tmp_path: Path, recorded: tuple[str, ...]) -> None:
    report = by_part(tmp_path / "one", 8, recorded)
    assert report.loss_parts == []
    assert not any(each.name == "loss-parts" for each in sheets(report))
    assert len(terminal_tables(report)) == 1


def test_published_numbers_stand_apart(exchange: Report) -> None:
    quoted = {"62.0", "59.9"}
    for each in sheets(exchange):
        cells = {cell for row in each.rows for cell in row}
        assert (quoted <= cells) == (each.name == "published")
        if each.name == "published":
            assert [row[1] for row in each.rows] == ["section 5", "section 5"]
            assert "quoted, not measured here" in each.note
    rows = list(csv.DictReader(io.StringIO(tidy_csv(exchange))))
    assert {row["value"] for row in rows if row["source"] != "here"} == quoted
    assert {row["source"] for row in rows} == {"here", "published, section 5"}
    shown = page(exchange)
    section = re.search(r"<section class='published'>.*?</section>", shown, flags=re.S)
    assert section is not None
    assert "59.9" not in shown.replace(section[0], "").replace(exchange.experiment.record.source, "")


def test_csv_has_every_number_once(exchange: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(tidy_csv(exchange))))
    keys = [tuple(row[name] for name in ("source", "quantity", "arm", "diagnostic", "tokens", "seed")) for row in rows]
    assert len(keys) == len(set(keys))
    mean = next(row for row in rows if row["quantity"] == "corpus tokens saved" and row["arm"] == "set-20k")
    saved = next(each for each in exchange.results if each.arm == "set-20k").saved
    assert saved is not None
    assert float(mean["value"]) == saved.value
    assert (float(mean["low"]), float(mean["high"]), mean["seeds"]) == (saved.low, saved.high, "3")
    seeds = [row for row in rows if row["quantity"] == "loss" and row["arm"] == "cold"]
    assert len(seeds) == 3 * 11


def test_json_is_the_report(exchange: Report) -> None:
    said = json.loads(json.dumps(exchange.as_json()))
    assert said["substitution"][0]["points"][1]["arm"] == "set-20k"
    assert said["published"][0]["here"]["n"] == 3
    assert said["controls"][0]["of"] == "set-20k"
    assert said["arms"][1]["perplexity_ratio"]["value"] < 1


def nasty(root: Path) -> Report:
    quoted = {"what": NASTY, "section": NASTY, "measure": "accuracy", "step": 100, "diagnostic": "haystack"}
    return build_report(load_experiment(two_arms(root, published=[quoted | {"arms": {"cold": 0.113, HOSTILE: 0.9}}])))


def test_latex_escapes_what_it_minds(tmp_path: Path) -> None:
    text = latex(nasty(tmp_path / "nasty"))
    body = re.sub(r"\\textbackslash\{\}|\\[a-zA-Z]+\{\}", "", re.sub(r"^%.*$", "", text, flags=re.M))
    assert r"50\,\% of \$x\_1 \& \#2 \{a\}" in body
    assert not re.search(r"(?<!\\)[#$~^](?!-\$)", body.replace("$-$", "").replace(r"$\geq$", ""))
    assert "\u4e2d" not in text
    assert body.count(r"\begin{tabular}") == body.count(r"\end{tabular}")
    for line in text.splitlines():
        if line.startswith("    cold"):
            assert line.endswith(r"\\")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles(tmp_path: Path, exchange: Report) -> None:
    tables = latex(nasty(tmp_path / "nasty")) + latex(exchange).replace("tab:", "tab:second-")
    document = (
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs}\n\\begin{document}\n"
        f"{tables}\n\\end{{document}}\n"
    )
    (tmp_path / "tables.tex").write_text(document, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-draftmode", "tables.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "multiply defined" not in done.stdout


@pytest.mark.parametrize(("written", "kinds"), [("png,svg , pdf", ("png", "svg", "pdf")), ("none", ())])
def test_kinds_of_figures(written: str, kinds: tuple[str, ...]) -> None:
    if figures_available() or not kinds:
        assert figure_kinds(written) == kinds
    with pytest.raises(OptionError, match='unknown format "gif"'):
        figure_kinds("png,gif")


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure_module, "find_spec", lambda name: None)
    assert figure_kinds(None) == ()
    with pytest.raises(OptionError, match=re.escape('pip install "proctool[report]"')):
        figure_kinds("svg")


@pytest.mark.slow
@pytest.mark.skipif(not figures_available(), reason="matplotlib is an extra")
def test_figures_are_whole_and_the_same_each_time(report: Report, exchange: Report, tmp_path: Path) -> None:
    written = write_figures(exchange, tmp_path / "a", ("svg", "pdf", "png"))
    assert [path.stem for path in written[::3]] == ["loss", "arms", "savings", "substitution", "gain", "dose-response"]
    begins = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    assert all(path.read_bytes().startswith(begins[path.suffix]) for path in written)
    for again in write_figures(exchange, tmp_path / "b", ("svg", "pdf")):
        assert again.read_bytes() == (tmp_path / "a" / again.name).read_bytes(), again.name
    named = {path.stem for path in write_figures(report, tmp_path / "c", ("svg",))}
    assert named == {"loss", "savings", "gain", "diagnostics", "curve-haystack"}  # one arm needs no ranking
    text = (tmp_path / "a" / "loss.svg").read_text(encoding="utf-8")
    assert "validation loss" in text  # text stays text, so that it can be searched and edited


@pytest.mark.skipif(not figures_available(), reason="matplotlib is an extra")
def test_many_arms_and_nothing_to_show(tmp_path: Path) -> None:
    made = Made(tmp_path / "many")
    for number in range(40):
        arm = "cold" if number == 0 else f"set-of-a-long-name-{number}"
        # No arm but the baseline reaches its loss, and no answer is right.
        run, probe = made.stage(f"run{number}", None, training(1 + number / 9)), f"hay{number}"
        made.measured(arm, 0, run, {}, haystack=made.stage(probe, None, training(accuracy=0.0)))
    built = build_report(load_experiment(made.write(seeds=[0])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = write_figures(built, tmp_path / "figures", ("svg",))
    assert {path.stem for path in written} == {"loss", "arms", "gain", "diagnostics", "curve-haystack"}
    for name in ("loss", "arms", "curve-haystack"):
        text = (tmp_path / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        shown = [arm for arm in made.arms if f">{arm}<" in text]
        # 40 curves of loss could not be told apart, so it has the best.
        assert shown == (list(made.arms)[:8] if name == "loss" else list(made.arms)[name == "arms" :])
    assert (tmp_path / "figures" / "diagnostics.svg").read_text(encoding="utf-8").count("> 0 %<") == 40
