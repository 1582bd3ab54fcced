"""Run the stage of a step, as the command line does, in this process."""

import importlib


def stage(step):
    return importlib.import_module(f"radprobe.stages.{step.verb}")


def run(study, step) -> None:
    stage(step).run(step.job, step.inputs, study.runtime(step))
