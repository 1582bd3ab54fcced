"""Lets `import torchvision` work beside a CPU-only torch. Import it before torchvision or timm, which imports that.

A CUDA build of torchvision cannot load its compiled operators under a CPU torch, and then its import fails with
`operator torchvision::nms does not exist`, because it registers a shape function for that operator. No backbone uses
nms, so declaring it (and its quantised twin) is enough. Where the compiled operators load, nothing is declared.
"""

import importlib.util
from pathlib import Path

import torch

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _load_compiled_operators() -> None:
    spec = importlib.util.find_spec("torchvision")
    for library in sorted(Path(spec.origin).parent.glob("_C.*")) if spec and spec.origin else []:
        try:
            torch.ops.load_library(str(library))
        except OSError:  # built for another torch
            return


def _declare() -> torch.library.Library | None:
    if torch.version.cuda is not None:
        return None
    _load_compiled_operators()
    if hasattr(torch.ops.torchvision, "nms"):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(name + SIGNATURE)
    return library


LIBRARY = _declare()  # the declaration lives as long as this reference
