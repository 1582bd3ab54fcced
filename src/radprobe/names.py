"""What the names of backbones and protocols say: `random:<id>`, `<id>@paper`, `<id>+<mode>`, rows without weights."""

from radprobe.catalog import PAPER

RANDOM, PIXELS, METADATA, CEILING = "random:", "pixels", "metadata", "ceiling"  # controls
SCRATCH = ("unet", "transunet")  # networks that are trained from nothing, to segment
FROM_SCRATCH = "from-scratch"  # their protocol
WITHOUT_WEIGHTS = (METADATA, CEILING, *SCRATCH)
ADAPTED = "+"  # before the way in which a backbone is trained: <id>+lora
TITLES = {"bitfit": "BitFit", "lora": "LoRA", "end_to_end": "end to end"}
MODES = tuple(TITLES)  # those ways, and their protocols
STANDING = (FROM_SCRATCH, *MODES)  # protocols that stand beside every one of frozen features
FLOOR = "shuffled"  # the protocol of permuted train labels: what a score is worth that learnt nothing

# Protocols that a verdict may speak of: heads and decoders on frozen features, the floor apart.
HEADLINES = ("knn", "knn@paper", "mlknn", "mlknn@paper", "linear", "linear@paper", "logistic")
HEADLINES += ("linear-decoder", "unet-decoder", "unet-decoder@paper")


def slug(backbone: str) -> str:
    """Return a backbone id as it stands in paths."""
    return backbone.replace(":", "-").replace("@", "-").replace(ADAPTED, "-")


def with_weights(backbone: str) -> str:
    """Return the id under which the weights of a backbone are kept: for `<id>@paper` and `<id>+lora` it is `<id>`."""
    return backbone.partition(ADAPTED)[0].removesuffix(PAPER)


def mode_of(backbone: str) -> str | None:
    """Return how a backbone is adapted, None where it stays frozen."""
    return backbone.partition(ADAPTED)[2] or None


def frozen(backbone: str) -> str:
    """Return the id of a backbone before it is adapted."""
    return backbone.partition(ADAPTED)[0]
