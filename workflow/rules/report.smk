"""The pages that people read."""


rule report:
    input:
        final_manifests,
    output:
        report(
            f"{REPORTS}/explorer.html",
            caption="../report/explorer.rst",
            category="Answer",
            labels={"page": "Explorer: the answer, and every number", "format": "HTML"},
        ),
        f"{REPORTS}/scores.parquet",
        f"{REPORTS}/metrics.json",
        f"{REPORTS}/headline.csv",
        [shown(each, ending) for each in FIGURES for ending in figures.FORMATS],
    log:
        f"{WORK}/logs/report.log",
    benchmark:
        f"{WORK}/benchmarks/report.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        study=files.digest(dict(config)),
        code=code("report", "catalog"),
    message:
        "Writing the report of {STUDY.params.study}"
    shell:
        "python -m radprobe report > {log:q} 2>&1"
