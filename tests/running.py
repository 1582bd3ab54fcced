"""Run the stage of a step, as the command line does, in this process."""

import importlib


def run(study, step) -> None:
    importlib.import_module(f"radprobe.stages.{step.verb}").run(step.job, step.inputs, study.runtime(step))
