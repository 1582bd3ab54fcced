"""What a backbone costs, from its architecture alone: no weights, no memory, no time on a device."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from radprobe.catalog import Backbone, Cost
from radprobe.models.adapters import targets
from radprobe.models.architectures import build

SIDES = (224, 448)


def cost(entry: Backbone) -> Cost:
    """Count parameters, and FLOPs and tokens of one image of 224 and of 448 px (or of the only side it takes)."""
    with torch.device("meta"), torch.no_grad():
        tower = build(entry).eval()
        found = {"parameters": sum(each.numel() for each in tower.parameters()), "blocks": tower.depth}
        found["lora_layers"] = len(targets(tower.model))
        for side in SIDES:
            taken = entry.side(side)
            tower.resize(taken)
            images = torch.zeros(1, 3, taken, taken)
            with FlopCounterMode(display=False) as counter:
                (layer,), pooled = tower(images, [entry.dense_layer], entry.pool == "library")
            found[f"gflops_{side}"] = round(counter.get_total_flops() / 1e9, 2)
            found[f"tokens_{side}"] = layer.map[0, 0].numel()
            found.setdefault("dim", layer.map.shape[1] if pooled is None else pooled.shape[1])
    return Cost(**found)
