"""Scores with patient-clustered intervals, from predictions alone."""


rule score:
    input:
        prepare=dependency("prepare"),
        split=dependency("split"),
        predictions=dependency("probe", "segment", "adapt", "external"),
    output:
        f"{RESULTS}/{{dataset}}/score/{{backbone}}/{{key}}/scores.json",
    log:
        f"{WORK}/logs/score/{{dataset}}/{{backbone}}/{{key}}.log",
    benchmark:
        f"{WORK}/benchmarks/score/{{dataset}}/{{backbone}}/{{key}}.tsv"
    conda:
        "../../envs/score.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        named=named,
    message:
        "Scoring {wildcards.backbone} on {wildcards.dataset}"
    shell:
        "python -m radprobe score {params.named} > {log:q} 2>&1"
