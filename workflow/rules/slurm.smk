"""What Slurm's plugin (2.8) does otherwise by itself; each has its test in tests/slurm."""

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

    # Jobs whose states could not be asked (a controller that restarts) it forgets, and the run waits for ever.
    ask, check = plugin.query_job_status, plugin.Executor.check_active_jobs
    states = []  # as the last answer of a check has them, None for no answer

    async def ask_and_note(command, log):
        answer = await ask(command, log)
        states[:] = [answer[0]]
        return answer

    async def check_and_keep(executor, jobs):
        states.clear()
        async for job in check(executor, jobs):
            yield job
        if states == [None]:
            executor.logger.warning("Slurm does not say what its jobs do; it is asked again.")
            for job in jobs:
                yield job

    plugin.query_job_status, plugin.Executor.check_active_jobs = ask_and_note, check_and_keep

    # A Slurm job would start a Snakemake for each of its rules, one at a time: 2 s a rule, and the cores of a group idle.
    if not settings.array_jobs:  # whose tasks find their part by the plugin's own way
        plugin.Executor.additional_general_args = lambda executor: "--executor local"
