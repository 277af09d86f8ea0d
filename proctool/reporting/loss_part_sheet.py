"""The table of where in a row the loss differs."""

from __future__ import annotations

from proctool.loss_parts import ICL_TOKEN
from proctool.reporting.interval import Estimate
from proctool.reporting.loss_parts import ICL, ArmParts
from proctool.reporting.report import Report
from proctool.reporting.sheet import NONE, Sheet
from proctool.reporting.sweep_sheets import nats

_INDUCTION = "induction step"


def loss_part_sheet(report: Report, brief: bool = False) -> Sheet:
    """A row of losses per arm, and a row of its gains; `brief` omits intervals and puts the title into a head."""
    names = list(dict.fromkeys(part.part for each in report.loss_parts for part in each.parts))
    tracked = any(each.induction_steps for each in report.loss_parts)
    title = "Where the loss differs"
    heads = (title if brief else "arm", "what", *names, *([_INDUCTION] if tracked else []))

    def said(found: Estimate | None) -> str:
        return NONE if found is None else nats(found).partition(" [")[0] if brief else nats(found)

    rows: list[tuple[str, ...]] = []
    for each in report.loss_parts:
        by_name = {part.part: part for part in each.parts}
        values = [said(by_name[name].value) if name in by_name else NONE for name in names]
        rows.append((each.arm, "loss", *values, *([_formed(each)] if tracked else [])))
        if each.arm != report.baseline:
            gains = [said(by_name[name].gain) if name in by_name else NONE for name in names]
            rows.append((each.arm, "gain", *gains, *([NONE] if tracked else [])))
    note = (
        "Validation loss at the end, in nats per token. Gain: positive if the arm is better. Copyable (n): the token "
        "and the n - 1 before it occurred earlier in the row; other: all other tokens. Position: tokens of the row "
        "read before."
    )
    if ICL in names:
        note += f" ICL score: in-context learning, the loss at a row's token {ICL_TOKEN} less the loss at its last."
    if tracked:
        note += " Induction step: the first evaluation with an induction head."
    drop = (*(name for name in names if name.endswith("(n=2)")), "position 1")
    return Sheet("loss-parts", title, heads, tuple(rows), note, words=2, drop=drop)


def _formed(each: ArmParts) -> str:
    if each.induction_steps is None:
        return NONE
    steps = [step for step in each.induction_steps if step is not None]
    if len(steps) < len(each.induction_steps):
        return f"in {len(steps)} of {len(each.induction_steps)}" if steps else "never"
    return f"{min(steps)}" if min(steps) == max(steps) else f"{min(steps)}-{max(steps)}"
