"""One process of a launch: writes the samples that its DataLoader gives, a line of tokens for each."""

import itertools
import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from proctool.procedural.streams import BLOCK
from proctool.torch import TaskStream, collate

if __name__ == "__main__":
    stream = TaskStream("set:inputs=4,symbols=50")
    torch.distributed.init_process_group("gloo")  # after the stream was made, as launchers and libraries may do it
    # A spawned worker knows nothing of the process group.
    loader = DataLoader(stream, batch_size=BLOCK, num_workers=2, collate_fn=collate, multiprocessing_context="spawn")
    rows = [row for batch in itertools.islice(loader, 4) for row in batch["input_ids"].tolist()]
    rank = torch.distributed.get_rank()
    Path(sys.argv[1], f"{rank}.txt").write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    torch.distributed.destroy_process_group()
