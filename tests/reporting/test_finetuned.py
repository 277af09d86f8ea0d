from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from proctool.reporting.experiment import load_experiment
from proctool.reporting.page import page
from proctool.reporting.render import latex, markdown, terminal_tables, tidy_csv
from proctool.reporting.report import Report, build_report
from proctool.reporting.sheets import finetuned as sheets_of
from tests.reporting.made import finetuned, training, write_events


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return build_report(load_experiment(finetuned(tmp_path / "tuned")))


def test_a_planted_gain_after_fine_tuning_is_found(report: Report) -> None:
    ((cold, warm),) = report.finetunes
    assert (cold.arm, cold.is_baseline, warm.arm, warm.seeds) == ("cold", True, "set", (0, 1, 2))
    assert cold.final_loss.value == pytest.approx(2.5)
    assert warm.gain.value == pytest.approx(0.11)
    assert warm.gain.excludes_zero
    assert warm.perplexity_ratio.value < 1
    # Losses on other text stay out of pretraining's.
    assert report.results[0].final_loss.value != pytest.approx(2.5)
    said = next(each for each in report.verdicts if each.startswith("After fine-tuning on wikitext"))
    assert "set ends 0.110 [0.085, 0.135] better: its gain at the end of pretraining" in said


def test_every_form_of_the_report_has_it(report: Report) -> None:
    (sheet,) = sheets_of(report)
    assert all(len(row) == len(sheet.heads) for row in sheet.rows)
    assert sheet.rows[1][4].startswith("0.110 [")
    for text in (markdown(report), latex(report).replace("{[}", "["), page(report)):
        assert "After fine-tuning on wikitext" in text
        assert "0.110" in text
    assert len(terminal_tables(report)) == 3
    section = re.findall(r"<section class='finetuned'>.*?</section>", page(report), flags=re.S)
    assert len(section) == 1
    rows = [row for row in csv.DictReader(io.StringIO(tidy_csv(report))) if row["finetune"] == "wikitext"]
    (gain,) = (row for row in rows if row["quantity"] == "gain")
    assert float(gain["value"]) == pytest.approx(0.11)
    assert len([row for row in rows if row["quantity"] == "loss"]) == 2 * 3 * 6
    said = json.loads(json.dumps(report.as_json()))["finetunes"]
    assert [each["arm"] for each in said] == ["cold", "set"]
    assert said[1]["perplexity_ratio"]["value"] == pytest.approx(2.718281828**-0.11)


def test_seeds_that_are_not_done_are_left_out(tmp_path: Path) -> None:
    root = finetuned(tmp_path / "tuned")
    write_events(root / "tuned-set1", *training(end=False, corpus="wikitext"))
    report = build_report(load_experiment(root))
    assert report.finetunes[0][1].seeds == (0, 2)
    assert any("(only seeds 0, 2)" in each for each in report.verdicts)
    for seed in (0, 1, 2):
        write_events(root / f"tuned-cold{seed}", *training(end=False, corpus="wikitext"))
    assert build_report(load_experiment(root)).finetunes == []


def test_other_tokens_are_left_out_and_said(tmp_path: Path) -> None:
    report = build_report(load_experiment(finetuned(tmp_path / "tuned", tokenizer="bytes")))
    assert [each.arm for each in report.finetunes[0]] == ["cold"]
    assert any("after fine-tuning on wikitext" in note and "tokenizer bytes" in note for note in report.notes)


def test_one_seed_claims_no_small_difference(tmp_path: Path) -> None:
    root = finetuned(tmp_path / "tuned", seeds=(0,))
    events = training(corpus="wikitext", tokenizer="gpt2", steps=50)
    for event in events[1:-1]:
        event["loss"] -= 0.001
    write_events(root / "tuned-set0", *events)
    (said,) = (each for each in build_report(load_experiment(root)).verdicts if each.startswith("After fine-tuning"))
    assert "not significant" in said
