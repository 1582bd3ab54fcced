"""What a person sees while a stage works: lines and a progress bar, both also readable in a log file."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
LOG_EVERY_S = 10  # between progress lines where there is no terminal


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def track(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Yield `items`; show a bar with the time left on a terminal, else a line every few seconds."""
    console = Console()
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            yield from progress.track(items, total=total, description=what)
        return
    start = last = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LOG_EVERY_S or count == total:
            rate = count / max(now - start, 1e-9)
            say(f"{what}: {count} of {total}, {rate:.1f}/s, {max(total - count, 0) / rate:.0f} s left")
            last = now
