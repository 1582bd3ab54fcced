"""Paired comparisons of the backbones on a dataset, from predictions alone."""


rule compare:
    input:
        prepare=dependency("prepare"),
        predictions=dependency("probe", "segment", "adapt", "external"),
    output:
        f"{RESULTS}/{{dataset}}/compare/{{key}}/comparison.json",
    log:
        f"{WORK}/logs/compare/{{dataset}}/{{key}}.log",
    benchmark:
        f"{WORK}/benchmarks/compare/{{dataset}}/{{key}}.tsv"
    conda:
        "../../envs/score.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        named=named,
    message:
        "Comparing the backbones on {wildcards.dataset}"
    shell:
        "python -m radprobe compare {params.named} > {log:q} 2>&1"
