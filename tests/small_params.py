"""Params of a small study of generated films, for tests that run a whole one."""

NO_CONTROLS = {"random_inits": 0, "pixels": False, "metadata": False, "ceiling": False}
SMALL = {
    "hub": False,
    "threads": 1,
    "datasets": {
        "montgomery": {"phantom": {"patients": 24}, "size": 112, "stored": 112},
        "nih_chestxray14": {"phantom": {"patients": 60}},
    },
    "backbones": ["test_vit"],
    "controls": NO_CONTROLS,
    "embed": {"shard_rows": 32},
    "probe": {"linear": {"epochs": 5}},
    "segment": {
        "linear": {"epochs": 2, "learning_rates": [0.01, 0.1]},
        "unet": {"epochs": 1, "learning_rates": [0.003], "widths": [8, 8]},
        "few_shot": {"shots": [1], "draws": 2, "steps": 4},
    },
}
