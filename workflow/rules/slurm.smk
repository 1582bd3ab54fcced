"""What Slurm's plugin (2.8) does otherwise by itself; each has its test in tests/slurm."""

import asyncio

from radprobe import machine


def suit_slurm(settings):
    """Change the plugin, where `settings`, those of the run's executor, are its own."""
    if not hasattr(settings, "status_command"):
        return
    import snakemake_executor_plugin_slurm as plugin

    # An installed sacct is asked for states, and without accounting it never answers.
    if machine.answers(["sacct", "--noheader"]) is None:
        logger.warning("Slurm has no accounting here (sacct): squeue is asked instead.")
        settings.status_command = "squeue"
        plugin.is_query_tool_available = lambda tool: tool != "sacct"

    # States that could not be asked (a controller that restarts) make it forget the jobs, and the run waits for ever.
    ask = plugin.query_job_status

    async def ask_until_answered(command, log):
        while (answer := await ask(command, log))[0] is None:
            log.warning("Slurm does not say what its jobs do; asked again in 10 s.")
            await asyncio.sleep(10)
        return answer

    plugin.query_job_status = ask_until_answered

    # A Slurm job would start a Snakemake for each of its rules, one at a time: 2 s a rule, and the cores of a group idle.
    plugin.Executor.additional_general_args = lambda executor: "--executor local"
