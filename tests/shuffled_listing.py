"""os.listdir and os.scandir, and so pathlib and glob, in another order at each call; or as a sitecustomize.py."""

import os
import random

LISTDIR, SCANDIR = os.listdir, os.scandir


class Entries:
    """What os.scandir returns, shuffled."""

    def __init__(self, entries):
        self.entries = entries
        random.shuffle(self.entries)

    def __iter__(self):
        return self

    def __next__(self):
        if not self.entries:
            raise StopIteration
        return self.entries.pop()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        self.entries = []


def listdir(path="."):
    return list(Entries(LISTDIR(path)))


def scandir(path="."):
    with SCANDIR(path) as entries:
        return Entries(list(entries))


if __name__ == "sitecustomize":
    os.listdir, os.scandir = listdir, scandir
