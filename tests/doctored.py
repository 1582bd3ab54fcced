"""What `radprobe doctor` says of a study."""

import json
from pathlib import Path

import yaml

from radprobe.commands import doctor

PHANTOM = {"montgomery": {"phantom": {"patients": 9}}}
GOOD = {"study": "s", "hub": False, "device": "cpu", "threads": 1, "datasets": PHANTOM, "backbones": ["test_vit"]}


def look(capsys, **changes):
    """Return the exit and the checks, by name, of a study that is GOOD but for the changes."""
    Path("params.yaml").write_text(yaml.safe_dump(GOOD | changes))
    capsys.readouterr()
    well = doctor.run(Path("params.yaml"), default=False, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert well == (told["problems"] == 0)
    assert told["problems"] == sum(one["state"] == "problem" for one in told["checks"])
    assert all(one["remedy"] for one in told["checks"] if one["state"] == "problem")
    return well, {one["check"]: one for one in told["checks"]}
