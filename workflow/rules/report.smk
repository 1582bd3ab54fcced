"""The pages that people read."""


rule report:
    input:
        final_manifests,
    output:
        report(
            f"{REPORTS}/explorer.html",
            caption="../report/explorer.rst",
            category="Answer",
        ),
        f"{REPORTS}/scores.parquet",
        report(
            [f"{REPORTS}/figures/{name}.svg" for name in FIGURES]
            + [f"{REPORTS}/figures/{name}_few_shot.svg" for name in FEW_SHOT]
            + [f"{REPORTS}/figures/{name}_adaptation.svg" for name in ADAPTATION],
            caption="../report/figure.rst",
            category="Scores by benchmark",
        ),
        report(
            [f"{REPORTS}/figures/{name}_frontier.svg" for name in FIGURES],
            caption="../report/frontier.rst",
            category="Cost and quality",
        ),
        report(
            f"{REPORTS}/figures/ranks.svg",
            caption="../report/ranks.rst",
            category="Ranks across tasks",
        ),
    log:
        f"{WORK}/logs/report.log",
    benchmark:
        f"{WORK}/benchmarks/report.tsv"
    conda:
        "../../envs/score.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        study=files.digest(dict(config)),
    message:
        "Writing the report of {STUDY.params.study}"
    shell:
        "python -m radprobe report > {log} 2>&1"
