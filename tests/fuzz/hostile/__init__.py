"""Files made to harm, and the command that each is handed to. Every one must be refused: one line, exit code 1, in
milliseconds, nothing allocated, nothing executed.

    python -m tests.fuzz.hostile          # a table: what each was, how long its refusal took, what memory it grew by
"""

from tests.fuzz.hostile import artifacts, folders, models, recipes, tokenizers  # which register their cases
from tests.fuzz.hostile.artifacts import DATA, data_file, sealed
from tests.fuzz.hostile.cases import CASES, MARK
from tests.fuzz.hostile.folders import model_folder
from tests.fuzz.hostile.measure import judged, outcome, within
from tests.fuzz.hostile.models import model_file
from tests.fuzz.hostile.tiny import TINY, tiny_weights

__all__ = [
    "CASES", "DATA", "MARK", "TINY", "artifacts", "data_file", "folders", "judged", "model_file", "model_folder",
    "models", "outcome", "recipes", "sealed", "tiny_weights", "tokenizers", "within",
]  # fmt: skip
