"""What dvc.yaml calls besides `retrieved` and `all`: of each dataset what it needs, and what comes of it."""

for each in STUDY.params.datasets:

    rule:
        name:
            f"embeddings_{each}"
        input:
            [made(verb, each) for verb in ("retrieve", "prepare", "split", "embed")],
        localrule: True

    rule:
        name:
            f"results_{each}"
        input:
            [manifest for one in STEPS.values() if one.dataset == each for manifest in one.outputs],
        localrule: True
