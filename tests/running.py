"""Run the stage of a step, as the command line does, in this process."""

import importlib

STAGES = {"weights": ("retrieve", "weights")}


def run(study, step) -> None:
    module, name = STAGES.get(step.verb, (step.verb, "run"))
    function = getattr(importlib.import_module(f"radprobe.stages.{module}"), name)
    if step.job is None:
        function(study, step)
    else:
        function(step.job, step.inputs, study.runtime(step))
