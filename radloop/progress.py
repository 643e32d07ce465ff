"""A progress bar on a terminal, and a line at the end where there is none."""

import sys
from collections.abc import Callable

WIDTH = 30

Progress = Callable[[int, int], None]  # done, of all


def bar(label: str) -> Progress:
    """A function that is told (done, of all)."""
    terminal = sys.stderr.isatty()
    shown = ""

    def show(done: int, total: int) -> None:
        nonlocal shown
        if terminal:
            filled = WIDTH * done // max(total, 1)
            end = "\n" if done >= total else ""
            text = f"\r{label} [{'#' * filled}{'.' * (WIDTH - filled)}] {100 * done // max(total, 1):3} %{end}"
            if text != shown:
                sys.stderr.write(text)
                sys.stderr.flush()
                shown = text
        elif done >= total:
            sys.stderr.write(f"{label}: done\n")

    return show
