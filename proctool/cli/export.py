"""`proctool export`: a model as a folder, and that folder on the hub."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from proctool.cli import display
from proctool.cli.options import Common, argument, with_options
from proctool.cli.training import quiet_libraries
from proctool.errors import OptionError

if TYPE_CHECKING:
    from proctool.export.folder import Exported
    from proctool.models.saved import SavedModel


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a Hugging Face folder, or weights for nanoGPT, litgpt or torchtitan."""

    strip_prefix: tuple[str, ...] = field(default=(), metadata={"metavar": "PREFIX"})
    """Prefix to remove from tensor names, such as module. (repeatable)."""
    format: Literal["hf", "nanogpt", "litgpt", "torchtitan", "torchtitan-0.2"] = "hf"
    """hf, or a state dict for another project's model."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the weights."""
    license: str | None = field(default=None, metadata={"metavar": "ID"})
    """License for the model card, such as apache-2.0."""
    language: tuple[str, ...] = field(default=(), metadata={"metavar": "CODE"})
    """Language for the model card: en (repeatable)."""
    push_to_hub: str | None = field(default=None, metadata={"metavar": "OWNER/NAME"})
    """Upload the folder to the hub as this model."""
    private: bool = False
    """Make the new repository private."""

    def __post_init__(self) -> None:
        for name in ("license", "language", "push_to_hub", "private") if self.format != "hf" else ():
            if getattr(self, name):
                flag = "--" + name.replace("_", "-")
                raise OptionError(
                    f"{flag} works only with --format hf: a state dict for {self.format} has no model card"
                )
        if self.private and self.push_to_hub is None:
            raise OptionError("--private works only with --push-to-hub; add it, or leave --private out")


def _export(options: ExportOptions, common: Common, file: Path, folder: Path) -> None:
    quiet_libraries()
    from proctool import __version__, hub
    from proctool.export.front_matter import Stated
    from proctool.models.saved import open_model

    form, dtype, target = options.format, options.dtype, options.push_to_hub
    if target is not None:
        hub.require_pushable(target)
    saved = open_model(file, options.strip_prefix)
    facts = {"folder": str(folder), "format": form, "dtype": dtype, "family": saved.config.model_type}
    if common.dry_run:
        _check(saved, folder, form)
        if common.json:
            display.emit(facts)
        display.say(f"export: would write {folder} ({saved.config.model_type}, {dtype}); nothing was written")
        return
    if form != "hf":
        from proctool.export.formats import export_as

        export_as(saved, folder, form, dtype)
        display.say(f"wrote {folder}: load model.safetensors with model.load_state_dict(safetensors.torch.load_file())")
    else:
        from proctool.export.folder import export as write_folder

        _say(write_folder(saved, folder, dtype, Stated(options.license, options.language)))
        display.say(f"wrote {folder}: load it with transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r})")
    if target is not None:
        display.say(f"uploading {folder} to {target}")
        where = hub.push(folder, target, private=options.private, message=f"Export with proctool {__version__}")
        display.say(f"uploaded: {where}")
        facts["uploaded"] = str(where)
    if common.json:
        display.emit({**facts, "files": sorted(path.name for path in folder.iterdir())})


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


_arguments = (
    argument("file", Path, "A model artifact, a model folder, or OWNER/NAME on the hub.", metavar="MODEL"),
    argument("folder", Path, "Folder to write; it must not exist yet.", metavar="FOLDER"),
)
export = with_options(ExportOptions, _export, arguments=_arguments)
