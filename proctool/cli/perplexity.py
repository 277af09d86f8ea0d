"""`proctool eval perplexity`: loss on a corpus."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from proctool import artifact
from proctool.cli import display
from proctool.cli.options import Common, argument, with_options
from proctool.cli.training import quiet_libraries
from proctool.evaluation.options import PerplexityOptions
from proctool.evaluation.row_scores import TrainingLoss
from proctool.loss_parts import ICL_TOKEN
from proctool.outputs import CSV_HEAD, Output, reads_of, require_safe
from proctool.units import counted, format_bytes, format_count


def _perplexity(options: PerplexityOptions, common: Common, model: Path) -> None:
    quiet_libraries()
    from proctool.evaluation.perplexity import perplexity as measure

    csv_file = options.per_position
    outputs = [] if csv_file is None else [Output(csv_file, "--per-position", "table")]
    require_safe(outputs, reads_of(options, model=model), cache_dir=options.cache_dir)
    results = display.Results(json=common.json)
    with display.progress("perplexity", options.documents, "documents") as shown:
        result = measure(model, options, shown.update)
    if options.rows is None:
        _show_documents(result, options, model, results)
    else:
        _show_rows(result, options.rows, model, results)
    results.emit(result)


def _show_documents(result: dict[str, Any], options: PerplexityOptions, model: Path, results: display.Results) -> None:
    if options.per_position is not None:
        _write(options.per_position, result["by_position"])
    per_byte = result["bits_per_byte"]
    results.line(
        f"{model} on {result['corpus']} ({result['split']}, {counted(result['documents'], 'document')}, "
        f"{format_bytes(result['bytes'])}): {_loss(result)}"
        + (f"{per_byte:.4f} bits per byte, " if per_byte is not None else "")
        + f"accuracy {result['accuracy']:.1%}, {counted(result['targets'], 'token')}"
    )
    _show_parts(result["loss_parts"], result["context"], results)
    display.notes(result["notes"])
    if options.documents is not None and result["documents"] < options.documents:
        display.say(
            f"the split has {counted(result['documents'], 'document', exact=True)}, "
            f"fewer than --documents {options.documents}"
        )
    if not result["lossless"]:
        _say_lossy(result)
    if result["trained_on"]:
        display.say("the model was trained on a corpus of this name, perhaps on these documents")
    if result["training"] is not None:
        display.say(TrainingLoss(**result["training"]).words())


def _show_rows(result: dict[str, Any], wanted: int, model: Path, results: display.Results) -> None:
    results.line(
        f"{model} on {result['corpus']} ({result['split']}, {counted(result['rows'], 'row')} of "
        f"{result['context']} tokens, {result['precision']}): {_loss(result)}accuracy {result['accuracy']:.1%}, "
        f"{counted(result['targets'], 'token')}"
    )
    _show_parts(result["loss_parts"], result["context"], results)
    display.notes(result["notes"])
    if result["rows"] < wanted:
        display.say(f"the split has {counted(result['rows'], 'row', exact=True)}, fewer than --rows {wanted}")
    if not result["as_in_training"]:
        display.say("these are not the rows of its training: the corpus, the tokenizer or the context differs")


def _loss(result: dict[str, Any]) -> str:
    per_token = result["perplexity"]
    return f"loss {result['loss']:.4f} (nats per token), " + (
        f"perplexity {per_token:.3f}, " if per_token is not None else ""
    )


def _show_parts(parts: dict[str, Any], context: int, results: display.Results) -> None:
    bands = [
        (str(band["first"]) if band["first"] == band["last"] else f"{band['first']}-{band['last']}", band)
        for band in parts["bands"]
    ]
    rows = [(f"tokens read before: {positions}", band) for positions, band in bands]
    for each in parts["ngrams"]:
        rows += [(f"copyable (n = {each['n']})", each["copyable"]), (f"not copyable (n = {each['n']})", each["other"])]
    shown = [
        (name, format_count(part["targets"]), "" if part["loss"] is None else f"{part['loss']:.4f}")
        for name, part in rows
    ]
    results.table({"where": "left", "tokens scored": "right", "loss": "right"}, shown)
    if parts["icl_score"] is not None:
        results.line(
            f"in-context-learning score {parts['icl_score']:.4f}: the loss at token {ICL_TOKEN} less the loss at "
            f"token {context}, over {format_count(parts['icl_rows'])} windows"
        )


def _say_lossy(result: dict[str, Any]) -> None:
    lossy, of = result["lossy"], f"of the {result['documents']} documents"
    if lossy["not_utf8"]:
        display.say(
            f"{lossy['not_utf8']} {of} are not UTF-8, so the tokenizer reads U+FFFD instead of some bytes; convert "
            "them (iconv -f LATIN1 -t UTF-8), or use --tokenizer bytes"
        )
    if rest := lossy["documents"] - lossy["not_utf8"]:
        display.say(f"the tokenizer does not reproduce {rest} {of} exactly (the first is document {lossy['first']})")
    display.say("bits per byte are not comparable with other models': the tokens leave out part of the text")


def _write(path: Path, by_position: dict[str, Any]) -> None:
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(CSV_HEAD.split(","))
    for position, (targets, loss) in enumerate(zip(by_position["targets"], by_position["loss"], strict=True), start=1):
        rows.writerow([position, targets, "" if loss is None else repr(loss)])
    with artifact.replacing(path) as file:
        file.write(written.getvalue().encode())


_model = argument("model", Path, "A model artifact or a Hugging Face folder.")
perplexity = with_options(PerplexityOptions, _perplexity, arguments=[_model], dry_run=False)
