"""Run the stage of a step, as the command line does, in this process."""

import importlib


def run(study, step) -> None:
    stage = importlib.import_module(f"radprobe.stages.{step.verb}")
    if step.job is None:
        stage.run(study, step)
    else:
        stage.run(step.job, step.inputs, study.runtime(step))
