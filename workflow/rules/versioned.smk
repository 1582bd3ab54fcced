"""What dvc.yaml calls besides `all`: raw files and weights, and of each dataset what it needs and what comes of it."""


rule retrieved:
    input:
        made("retrieve"),
        made("weights"),
    localrule: True


rule versioned:
    input:
        made(),
    localrule: True


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
            made(dataset=each),
        localrule: True
