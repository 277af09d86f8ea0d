"""`proctool transplant`: parts of several models in, one model artifact out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proctool.cli import display, tables
from proctool.cli.options import Common, with_options
from proctool.cli.training import quiet_libraries
from proctool.transplantation.options import TransplantOptions
from proctool.units import format_count

if TYPE_CHECKING:
    from proctool.transplantation import Transplant


def _transplant(options: TransplantOptions, common: Common) -> None:
    quiet_libraries()
    from proctool.transplantation import plan_transplant, records, summary
    from proctool.transplantation.engine import as_json

    planned = plan_transplant(options)
    for note in (*planned.notes, *(left.words() for left in planned.left)):
        display.say(f"transplant: {note}")
    if common.dry_run:
        _table(planned)
        if common.json:
            display.emit(as_json(planned))
        return
    display.say(f"transplant: a {planned.target.config.model_type} model")
    display.carried(records(summary(planned.origins)))
    written = planned.write(options.output)
    display.say(f"wrote {options.output} (content {written.content[:12]})")
    if common.json:
        display.emit(as_json(planned) | {"artifact": str(options.output), "content": written.content})


def _table(planned: Transplant) -> None:
    """Every tensor: its shape, whether it changes, and where it comes from."""
    rows = [
        (each.tensor, "x".join(map(str, each.shape)) or "1", each.source, each.provenance.words())
        for each in planned.origins
    ]
    tables.show(dict.fromkeys(("tensor", "shape", "source", "origin"), "left"), rows, stderr=True, drop=("shape",))
    kept = sum(origin.size for origin in planned.origins if origin.source in ("fresh", "base"))
    total = sum(origin.size for origin in planned.origins)
    display.say(
        f"transplant: {format_count(total - kept)} of {format_count(total)} parameters from donors; nothing was written"
    )


transplant = with_options(TransplantOptions, _transplant)
