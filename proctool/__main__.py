"""`python -m proctool` is the `proctool` command (so `accelerate launch -m proctool` works)."""

from proctool.cli.main import main

if __name__ == "__main__":
    main()
