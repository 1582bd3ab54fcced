"""What the names of backbones and protocols say.

`random:<id>` is the first random initialisation of a backbone, `random:<id>~2` the second; `<id>@paper`, `<id>+<mode>`.
"""

import re

from radprobe.catalog import PAPER

RANDOM, PIXELS, METADATA, CEILING = "random:", "pixels", "metadata", "ceiling"  # controls
SCRATCH = ("unet", "transunet")  # networks that are trained from nothing, to segment
FROM_SCRATCH = "from-scratch"  # their protocol
EXTERNAL = "external"  # the verb, protocol and family of predictions that were made elsewhere
WITHOUT_WEIGHTS = (METADATA, CEILING, *SCRATCH)
FURTHER = "~"  # before the number of a further random initialisation: random:<id>~2
ADAPTED = "+"  # before the way in which a backbone is trained: <id>+lora
HEAD = "head"  # the way that trains the head alone: the reference for the gains of the others
TITLES = {HEAD: "head only", "bitfit": "BitFit", "lora": "LoRA", "end_to_end": "end to end"}
MODES = tuple(TITLES)  # those ways, and their protocols
STANDING = (FROM_SCRATCH, *MODES, EXTERNAL)  # protocols that stand beside every one of frozen features
FLOOR = "shuffled"  # the protocol of permuted train labels: what a score is worth that learnt nothing

# Protocols that a verdict may speak of: heads and decoders on frozen features, the floor apart.
HEADLINES: tuple[str, ...] = ("knn", "knn@paper", "mlknn", "mlknn@paper", "linear", "linear@paper", "logistic")
HEADLINES += ("linear-decoder", "unet-decoder", "unet-decoder@paper")
# The protocols that verdicts speak of where the one of params was not scored: fixed, so that no test score chooses.
PREFERRED = ("logistic", "linear", "linear-decoder")


def slug(backbone: str) -> str:
    """Return a backbone id as it stands in paths."""
    for sign in (":", "@", FURTHER, ADAPTED):
        backbone = backbone.replace(sign, "-")
    return backbone


def in_files(case_id: str) -> str:
    """Return a case id as the name of a file, without its suffix: what `export` writes and `external` reads."""
    return re.sub(r"[^\w.-]", "_", case_id)


def with_weights(backbone: str) -> str:
    """Return the id under which the weights of a backbone are kept.

    For `<id>@paper` and `<id>+lora` it is `<id>`. Each random initialisation has weights of its own.
    """
    name, further, number = frozen(backbone).partition(FURTHER)
    return name.removesuffix(PAPER) + further + number


def mode_of(backbone: str) -> str | None:
    """Return how a backbone is adapted, None where it stays frozen."""
    return backbone.partition(ADAPTED)[2] or None


def frozen(backbone: str) -> str:
    """Return the id of a backbone before it is adapted."""
    return backbone.partition(ADAPTED)[0]


# --- random initialisations -------------------------------------------------------------------------------------------


def random_init(backbone: str) -> str:
    """Return the control row of a backbone: its first random initialisation. A trained one has that of its base."""
    return RANDOM + frozen(backbone)


def inits(control: str, n: int) -> list[str]:
    """Return the names of `n` random initialisations, the first of which is the control row `random:<id>` itself."""
    return [control, *(f"{control}{FURTHER}{number}" for number in range(2, n + 1))][:n]


def init_number(backbone: str) -> int:
    """Return which random initialisation a name means, counted from 1; 1 also for every other backbone."""
    number = backbone.partition(FURTHER)[2]
    return int(number) if number.isdecimal() else 1


def first_init(backbone: str) -> str:
    """Return the control row that a random initialisation belongs to; every other name as it is."""
    return backbone.partition(FURTHER)[0]


def is_further_init(backbone: str) -> bool:
    """Is it a random initialisation after the first? It has steps of its own, but no row of its own in the report."""
    return FURTHER in backbone


def original(backbone: str) -> str:
    """Return the pretrained backbone of a random initialisation; of every other name the frozen backbone."""
    return first_init(frozen(backbone)).removeprefix(RANDOM)
