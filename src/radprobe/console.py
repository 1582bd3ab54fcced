"""What a person sees: lines, tables and a progress bar, all also readable in a log file."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table

Item = TypeVar("Item")
LOG_EVERY_S = 10  # between progress lines where there is no terminal
WIDTH = 160  # of a table in a file or a pipe
STATES = {"ok": "green", "note": "yellow", "problem": "bold red"}  # state of a check -> how a terminal shows it


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def say_facts(title: str, facts: Mapping[str, str]) -> None:
    """Print a title, and under it the facts that are not empty, one a line."""
    say(title)
    for name, text in facts.items():
        if text:
            say(f"  {name}: {text}")


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, as wide as the terminal or 160 characters."""
    table = Table(*(Column(column, overflow="fold") for column in columns), show_lines=True)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    _wide_enough().print(table)


def show_states(lines: Iterable[tuple[str, str, str, str]]) -> None:
    """Print lines of (state, what, found, remedy); the remedy, where there is one, stands under what was found."""
    table = Table.grid(Column(no_wrap=True), Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for state, what, found, remedy in lines:
        told = escape(found) + (f"\n-> {escape(remedy)}" if remedy else "")
        table.add_row(f"[{STATES[state]}]{state}[/]", escape(what), told)
    _wide_enough().print(table)


def _wide_enough() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=WIDTH, highlight=False)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, one line a row."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(_markdown_cell(cell) for cell in line)} |\n" for line in lines)


def _markdown_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


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


def track_bytes(chunks: Iterable[bytes], what: str, total: int | None, done: int = 0) -> Iterator[bytes]:
    """Yield `chunks`; show how many bytes have come, as `track` does. `done`: bytes that were there before."""
    console = Console()
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            task = progress.add_task(what, total=total, completed=done)
            for chunk in chunks:
                yield chunk
                progress.advance(task, len(chunk))
        return
    start = last = time.monotonic()
    came = 0
    for chunk in chunks:
        yield chunk
        came += len(chunk)
        now = time.monotonic()
        if now - last >= LOG_EVERY_S:
            rate = max(came / (now - start), 1)
            left = f", {(total - done - came) / rate:.0f} s left" if total else ""
            say(f"{what}: {size(done + came)} of {size(total)}, {size(int(rate))}/s{left}")
            last = now


def size(n_bytes: int | None) -> str:
    """Return a number of bytes as a person reads it, "27.1 MB"."""
    return "unknown size" if n_bytes is None else decimal(n_bytes)


def about(count: float) -> str:
    """Return a number of patients to two digits, as an estimate is said."""
    digits = max(len(str(int(count))) - 2, 0)
    return f"{max(int(round(count, -digits)), 1):,}"
