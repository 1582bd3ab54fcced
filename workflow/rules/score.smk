"""Scores with patient-clustered intervals, and paired comparisons; both from predictions alone."""


rule score:
    input:
        needs("score"),
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
        key=knobs("score"),
        named=named("score"),
    message:
        "Scoring {wildcards.backbone} on {wildcards.dataset}"
    shell:
        "python -m radprobe score {params.named} > {log:q} 2>&1"


rule compare:
    input:
        needs("compare"),
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
        key=knobs("compare"),
        named=named("compare"),
    message:
        "Comparing the backbones on {wildcards.dataset}"
    shell:
        "python -m radprobe score {params.named} > {log:q} 2>&1"
