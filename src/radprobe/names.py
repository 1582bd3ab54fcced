"""What the names of backbones and protocols say: `random:<id>`, `<id>@paper`, `<id>+<mode>`, rows without weights."""

import re

from radprobe.catalog import PAPER

RANDOM, PIXELS, METADATA, CEILING = "random:", "pixels", "metadata", "ceiling"  # controls
SCRATCH = ("unet", "transunet")  # networks that are trained from nothing, to segment
FROM_SCRATCH = "from-scratch"  # their protocol
EXTERNAL = "external"  # the verb, protocol and family of predictions that were made elsewhere
WITHOUT_WEIGHTS = (METADATA, CEILING, *SCRATCH)
ADAPTED = "+"  # before the way in which a backbone is trained: <id>+lora
TITLES = {"bitfit": "BitFit", "lora": "LoRA", "end_to_end": "end to end"}
INIT = "~"  # before the number of a further random initialisation: random:<id>~2
MODES = tuple(TITLES)  # those ways, and their protocols
STANDING = (FROM_SCRATCH, *MODES, EXTERNAL)  # protocols that stand beside every one of frozen features
FLOOR = "shuffled"  # the protocol of permuted train labels: what a score is worth that learnt nothing


def slug(backbone: str) -> str:
    """Return a backbone id as it stands in paths."""
    return backbone.replace(":", "-").replace("@", "-").replace(ADAPTED, "-")


def in_files(case_id: str) -> str:
    """Return a case id as the name of a file, without its suffix: what `export` writes and `external` reads."""
    return re.sub(r"[^\w.-]", "_", case_id)


def with_weights(backbone: str) -> str:
    """Return the id under which the weights of a backbone are kept: for `<id>@paper` and `<id>+lora` it is `<id>`."""
    return backbone.partition(ADAPTED)[0].removesuffix(PAPER)


def mode_of(backbone: str) -> str | None:
    """Return how a backbone is adapted, None where it stays frozen."""
    return backbone.partition(ADAPTED)[2] or None


def frozen(backbone: str) -> str:
    """Return the id of a backbone before it is adapted."""
    return backbone.partition(ADAPTED)[0]


def first_init(name: str) -> str:
    """Return the id of the first random initialisation of the same backbone; any other id as it is."""
    return name.partition(INIT)[0] if name.startswith(RANDOM) else name
