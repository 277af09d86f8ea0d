"""Files from strangers: recipes, artifacts, corpora, tokenizers, model and run folders.

Whoever opens one must be able to trust that it runs no code (no pickles, no YAML tags, no code of models or
tokenizers), takes no more memory or time than its size and our limits allow (sizes and depth are checked before
anything is allocated), reads and writes nothing outside the paths that were named, puts no control codes on a terminal
(`errors.one_line`), and is either read as it was meant or refused in one line (a key given twice, NaN, 3 for "3").
The libraries' own means come first: PyYAML's safe loader, json's hooks, safetensors, trust_remote_code=False.
Not defended against: an author who seals wrong contents with right hashes, which show damage and not who made a file;
and programs that change a file while it is read.
"""

from proctool.untrusted.json_text import Malformed, parse_json, require_shallow, typed
from proctool.untrusted.yaml_text import parse_yaml

__all__ = ["Malformed", "parse_json", "parse_yaml", "require_shallow", "typed"]
