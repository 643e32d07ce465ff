"""A progress bar on a terminal, and a line at the end where there is none."""

import sys
from collections.abc import Callable

WIDTH = 30


def bar(label: str) -> Callable[[int, int], None]:
    """A function that is told (done, of all)."""
    terminal = sys.stderr.isatty()

    def show(done: int, total: int) -> None:
        if terminal:
            filled = WIDTH * done // max(total, 1)
            end = "\n" if done >= total else ""
            sys.stderr.write(f"\r{label} [{'#' * filled}{'.' * (WIDTH - filled)}] {done}/{total}{end}")
            sys.stderr.flush()
        elif done >= total:
            sys.stderr.write(f"{label}: {total}\n")

    return show
