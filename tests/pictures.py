"""docs/pictures from the page that `make demo` makes: `make pictures`. It wants Chromium."""

import sys
import tempfile
from pathlib import Path

from browser import Browser
from PIL import Image

FOLDER = Path(__file__).parents[1] / "docs/pictures"
COLOURS = 64  # flat colours and text want no more, and a third of the bytes
MARGIN = 16
HIDE = """
document.querySelector('header p').hidden = true;    // date and machine of whoever makes it
const cards = [...document.querySelectorAll('#verdict .card')].slice(2);
cards.forEach((card) => card.hidden = true);    // two cards show what a verdict is
"""


def main(page: Path) -> None:
    """Write the verdict (report.png) and the map (map.png) of an explorer page."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as tab:
        tab.open(page.resolve().as_uri(), width=1000)
        tab.run(f"(() => {{ {HIDE} }})()")
        shots = {"report.png": ["header", "#verdict"], "map.png": ["#map"]}
        for name, sections in shots.items():
            parts = []
            for section in sections:
                tab.picture(file := Path(profile) / "part.png", section)
                parts.append(Image.open(file).convert("RGB"))
            size = parts[0].width + 2 * MARGIN, sum(part.height for part in parts) + 2 * MARGIN
            whole = Image.new("RGB", size, "white")
            for k, part in enumerate(parts):
                whole.paste(part, (MARGIN, MARGIN + sum(above.height for above in parts[:k])))
            whole.quantize(COLOURS, dither=Image.Dither.NONE).save(FOLDER / name, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
