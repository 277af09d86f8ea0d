"""`python -m proctool` is the `proctool` command (so `accelerate launch -m proctool` works)."""

import os
import sys

from proctool import cache, errors, signals, streams
from proctool.training.environment import prepare_allocator


def main() -> None:
    """Run the command line. Streams and signals are set up before anything heavy is imported."""
    streams.guard()
    signals.install()
    try:
        with errors.reported(), streams.written_out():
            cache.settle()
            prepare_allocator()
            from proctool.cli import main as command_line

            command_line.main()
    finally:
        signals.ignore()


if __name__ == "__main__":
    # `python path/to/proctool` adds the package folder to sys.path, where our torch.py would hide the library torch.
    sys.path = [each for each in sys.path if os.path.realpath(each) != os.path.dirname(os.path.realpath(__file__))]
    main()
