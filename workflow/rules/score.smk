"""Scores with patient-clustered intervals, and paired comparisons; both from predictions alone."""


rule score:
    input:
        needs("score"),
    output:
        f"{RESULTS}/{{dataset}}/score/{{backbone}}/{{spec}}/scores.json",
    log:
        f"{WORK}/logs/score/{{dataset}}/{{backbone}}/{{spec}}.log",
    benchmark:
        f"{WORK}/benchmarks/score/{{dataset}}/{{backbone}}/{{spec}}.tsv"
    conda:
        "../../envs/score.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        spec=knobs("score"),
        named=named("score"),
    message:
        "Scoring {wildcards.backbone} on {wildcards.dataset}"
    shell:
        "python -m radprobe score {params.named} > {log:q} 2>&1"


rule compare:
    input:
        needs("compare"),
    output:
        f"{RESULTS}/{{dataset}}/compare/{{spec}}/comparison.json",
    log:
        f"{WORK}/logs/compare/{{dataset}}/{{spec}}.log",
    benchmark:
        f"{WORK}/benchmarks/compare/{{dataset}}/{{spec}}.tsv"
    conda:
        "../../envs/score.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        spec=knobs("compare"),
        named=named("compare"),
    message:
        "Comparing the backbones on {wildcards.dataset}"
    shell:
        "python -m radprobe score {params.named} > {log:q} 2>&1"
