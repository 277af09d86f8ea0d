"""`python -m proctool` is the `proctool` command (so `accelerate launch -m proctool` works)."""

from proctool import errors, signals


def main() -> None:
    """Run the command line in a process of its own, whose signals are taken before anything heavy is imported."""
    signals.install()
    try:
        with errors.reported():
            from proctool.cli.main import app

            app(prog_name="proctool")
    finally:
        signals.ignore()


if __name__ == "__main__":
    main()
