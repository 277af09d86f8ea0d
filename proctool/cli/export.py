"""`proctool export`: a model as a folder, and that folder on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from proctool.cli import display
from proctool.errors import OptionError
from proctool.paths import AS_PATH

if TYPE_CHECKING:
    from proctool.export.folder import Exported
    from proctool.models.saved import SavedModel


def export(
    file: Annotated[
        Path, typer.Argument(help="A model artifact, a model folder, or OWNER/NAME on the hub.", **AS_PATH)
    ],
    folder: Annotated[Path, typer.Argument(help="Folder to write; it must not exist yet.", **AS_PATH)],
    strip_prefix: Annotated[
        list[str],
        typer.Option(
            metavar="PREFIX",
            help="Prefix to remove from tensor names, such as module. (repeatable).",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    form: Annotated[
        Literal["hf", "nanogpt", "litgpt", "torchtitan", "torchtitan-0.2"],
        typer.Option("--format", help="hf, or a state dict for another project's model."),
    ] = "hf",
    dtype: Annotated[Literal["fp32", "bf16", "fp16"], typer.Option(help="Number format of the weights.")] = "fp32",
    license_: Annotated[
        str | None,
        typer.Option("--license", metavar="ID", help="License for the model card, such as apache-2.0."),
    ] = None,
    language: Annotated[
        list[str],
        typer.Option(metavar="CODE", help="Language for the model card: en (repeatable).", show_default=False),
    ] = [],  # noqa: B006
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the folder to the hub as this model.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the new repository private.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the model and the folder; write nothing.")] = False,
) -> None:
    """Write a Hugging Face folder, or weights for nanoGPT, litgpt or torchtitan."""
    from proctool.cli.training import quiet_libraries

    quiet_libraries()
    from proctool import __version__, hub
    from proctool.export.front_matter import Stated
    from proctool.models.saved import open_model

    given = {"--license": license_, "--language": language, "--push-to-hub": push_to_hub, "--private": private}
    if form != "hf" and (named := [option for option, value in given.items() if value]):
        raise OptionError(f"{named[0]} works only with --format hf: a state dict for {form} has no model card")
    if private and push_to_hub is None:
        raise OptionError("--private works only with --push-to-hub; add it, or leave --private out")
    stated = Stated(license_, tuple(language))
    if push_to_hub is not None:
        hub.require_pushable(push_to_hub)
    saved = open_model(file, strip_prefix)
    facts = {"folder": str(folder), "format": form, "dtype": dtype, "family": saved.config.model_type}
    if dry_run:
        _check(saved, folder, form)
        if as_json:
            display.emit(facts)
        return display.say(f"export: would write {folder} ({saved.config.model_type}, {dtype}); nothing was written")
    if form != "hf":
        from proctool.export.formats import export_as

        export_as(saved, folder, form, dtype)
        display.say(f"wrote {folder}: load model.safetensors with model.load_state_dict(safetensors.torch.load_file())")
    else:
        from proctool.export.folder import export as write_folder

        _say(write_folder(saved, folder, dtype, stated))
        display.say(f"wrote {folder}: load it with transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r})")
    if push_to_hub is not None:
        display.say(f"uploading {folder} to {push_to_hub}")
        where = hub.push(folder, push_to_hub, private=private, message=f"Export with proctool {__version__}")
        display.say(f"uploaded: {where}")
        facts["uploaded"] = str(where)
    if as_json:
        display.emit({**facts, "files": sorted(path.name for path in folder.iterdir())})
    return None


def _check(saved: SavedModel, folder: Path, form: str) -> None:
    """Raise what an export would refuse before it reads weights."""
    from proctool.export.folder import require_exportable
    from proctool.export.formats import fitted

    if form == "hf":
        require_exportable(saved, folder)
    else:
        fitted(saved, folder, form)


def _say(written: Exported) -> None:
    if written.left_out:
        names = ", ".join(written.left_out)
        display.say(f"generation_config.json: left out settings that transformers rejects: {names}")
    if written.begins_with is not None:
        display.say(
            f"the model was trained on texts that begin after {written.begins_with}: the exported tokenizer has it as "
            "its BOS token and does not add it by itself"
        )
    if written.unsaid_length is not None:
        display.say(
            "tokenizer_config.json is unchanged and sets no model_max_length; the model reads at most "
            f"{written.unsaid_length} tokens"
        )
