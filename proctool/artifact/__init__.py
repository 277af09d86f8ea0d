"""Self-describing safetensors files: the output of every step and the input of the next.

A file is ordinary safetensors (https://github.com/huggingface/safetensors#format): 8 bytes of header length, a JSON
header, the tensors' bytes. Its metadata holds one JSON document under the key `proctool`:

    format    version of this layout
    kind      "data", "model", ...
    about     the metadata: configuration, task or corpus, seed, tokens seen, metrics (no clocks, no paths,
              so that the same work gives the same bytes)
    parents   [{"name", "kind", "content"}]: the artifacts it was made from
    versions  of proctool and the libraries that made it
    tensors   {name: {"dtype", "shape", "sha256"}}
    content   SHA-256 over `tensors`: the identity of the contents, used in lineages
    seal      SHA-256 over everything above

Reading checks the structure before it allocates memory, and every hash before it returns data.
"""

from proctool.artifact.files import replacing, sync_folder, umask
from proctool.artifact.folders import require_free, staged
from proctool.artifact.layout import Artifact, TensorInfo, bare_name, canonical, digest, name_given, versions
from proctool.artifact.reading import open_artifact, read_header, read_layout, read_numpy, read_torch, verify
from proctool.artifact.sidecar import Hashed, described, is_described, is_sidecar, read_sidecar, sidecar_of
from proctool.artifact.writing import TensorCopy, output, write

__all__ = [
    "Artifact",
    "Hashed",
    "TensorCopy",
    "TensorInfo",
    "bare_name",
    "canonical",
    "described",
    "digest",
    "is_described",
    "is_sidecar",
    "name_given",
    "open_artifact",
    "output",
    "read_header",
    "read_layout",
    "read_numpy",
    "read_sidecar",
    "read_torch",
    "replacing",
    "require_free",
    "sidecar_of",
    "staged",
    "sync_folder",
    "umask",
    "verify",
    "versions",
    "write",
]
