"""Untrusted files: recipes, artifacts, corpora, tokenizers, model folders and run folders.

Opening such a file is safe:

- It runs no code: no pickles, no YAML tags, no code of models or tokenizers.
- It takes no more memory or time than its size and our limits allow. Sizes and depth are checked first.
- It reads and writes nothing outside the named paths.
- It prints no control codes on a terminal (`errors.one_line`).
- It is read exactly or refused in one line (for example a duplicate key, NaN, or 3 instead of "3").

Where a library has its own protection, we use it: PyYAML's safe loader, json's hooks, safetensors,
trust_remote_code=False. Not covered: an author who stores wrong contents with correct hashes (hashes detect corruption,
not tampering), and programs that change a file while it is read.
"""

from proctool.untrusted.json_text import Malformed, parse_json, require_shallow, typed
from proctool.untrusted.yaml_text import parse_yaml

__all__ = ["Malformed", "parse_json", "parse_yaml", "require_shallow", "typed"]
