"""The pages that people read."""


rule report:
    input:
        final_manifests,
    output:
        report(f"{REPORTS}/explorer.html", caption="../report/explorer.rst", category="Answer"),
        report(
            [f"{REPORTS}/figures/{name}.svg" for name in FIGURES],
            caption="../report/figure.rst",
            category="Scores by benchmark",
        ),
    params:
        study=files.digest(dict(config)),
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    conda:
        "../../envs/score.yaml"
    log:
        f"{WORK}/logs/report.log",
    benchmark:
        f"{WORK}/benchmarks/report.tsv"
    message:
        "Writing the report of {STUDY.params.study}"
    shell:
        "{RADPROBE} report --params {PARAMS} > {log} 2>&1"
