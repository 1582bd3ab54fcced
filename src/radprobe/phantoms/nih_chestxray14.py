"""Generated raw downloads of NIH ChestX-ray14, in its official layout."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from radprobe.catalog import RawEntry
from radprobe.datasets.nih_chestxray14 import LISTS, NO_FINDING, TABLES
from radprobe.phantoms import anatomy

SIDE = 256  # as in the usual resized copies; the official images are 1024 px
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BLOCK = 20  # among so many patients each finding is the main one of one; the others have none
TEST_SHARE = 0.25


def generate(folder: Path, entry: RawEntry, patients: int, seed: int) -> None:
    """Write a generated download: 2 to 5 images a patient in images_001 ... images_012, table and both lists.

    Findings are drawn where the table says so and nowhere else. With 20 patients or more all 14 of them occur.
    Some PNGs are RGBA and the lists end without a newline, as in the official files.
    """
    rng = np.random.default_rng(seed)
    classes = list(anatomy.FINDINGS)
    order = np.concatenate([rng.permutation(BLOCK) for _ in range(-(-patients // BLOCK))])[:patients]
    people = [anatomy.person(np.random.default_rng([seed, number])) for number in range(1, patients + 1)]
    films = []
    for number, (person, main) in enumerate(zip(people, order, strict=True), 1):
        main_finding = classes[main] if main < len(classes) else None
        films += _phantom_visits(number, person, main_finding, classes, np.random.default_rng([seed, number, 1]))
    n_test = round(TEST_SHARE * patients)
    # the last patients of train_val become val: they stay there, so that a small phantom has a val part too
    test = set(1 + rng.choice(patients - n_test // 2, n_test, replace=False))
    _write_tables(folder, films, test)
    for count, (archive, film) in enumerate(zip(_archives(len(films)), films, strict=True)):
        path = folder / archive / "images" / film["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels, _ = anatomy.film(
            film["person"], film["findings"], (SIDE, SIDE), np.random.default_rng([seed, 2, count])
        )
        Image.fromarray(pixels).convert("RGBA" if count % 16 == 5 else "L").save(path, compress_level=1)
    anatomy.mark(folder, patients, seed)


def _phantom_visits(
    number: int, person: anatomy.Person, main: str | None, classes: list[str], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Return a patient's films; the first is before the findings came, so that small parts have both."""
    visits = int(rng.integers(2, 6))
    chronic = [name for name in classes if name == main or rng.random() < 0.03]
    films = []
    for visit in range(visits):
        seen = [name for name in chronic if name == main or rng.random() < 0.85]
        findings = seen if visit else []
        view = "AP" if rng.random() < 0.4 else "PA"
        films.append(
            {
                "name": f"{number:08d}_{visit:03d}.png",
                "findings": findings,
                "row": f"{visit},{number},{person.age + visit},{person.sex},{view},2500,2048,0.168,0.168",
                "person": person,
                "patient": number,
            }
        )
    return films


def _write_tables(folder: Path, films: list[dict[str, Any]], test: set[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{film['name']},{'|'.join(film['findings']) or NO_FINDING},{film['row']}" for film in films]
    (folder / TABLES[0]).write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    for part, name in LISTS.items():
        names = [film["name"] for film in films if (film["patient"] in test) == (part == "test")]
        (folder / name).write_text("\n".join(names), encoding="utf-8")


def _archives(n: int) -> list[str]:
    return [f"images_{1 + 12 * position // n:03d}" for position in range(n)]
