"""radprobe: from raw radiology downloads to one report. `params.yaml` is the study; `radprobe --help` lists the verbs."""

from snakemake.utils import min_version

min_version("9.0")

# A study named by --configfile stands alone: merged with params.yaml it would be neither of the two.
if "datasets" not in config:

    configfile: "params.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/slurm.smk"
include: "workflow/rules/retrieve.smk"
include: "workflow/rules/weights.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/split.smk"
include: "workflow/rules/embed.smk"
include: "workflow/rules/probe.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/adapt.smk"
include: "workflow/rules/external.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/versioned.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        rules.report.output,
        # themselves, and not through the report alone: after a failure there is a report of what there was; and all of
        # them, as Snakemake makes no lost one again that nothing asks for
        made(),
    message:
        "Done: open {input[0]}"


onstart:
    suit_slurm(workflow.executor_settings)


# Both pages after each run that made one. A failed cell hides nothing: they show what there is, and say what failed.
onsuccess:
    if is_stale(SNAKEMAKE_PAGE, Path(rules.report.output[0])):
        shell(SNAKEMAKE_REPORT)


onerror:
    shell(f"python -m radprobe report && {SNAKEMAKE_REPORT}")
