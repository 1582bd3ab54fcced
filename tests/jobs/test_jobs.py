"""A key covers what its stage reads, and nothing else."""

from collections import defaultdict

import pytest
import running
from small_params import NO_CONTROLS

from radprobe import catalog
from radprobe.jobs import JobPart
from radprobe.study import Study

FILMS, LUNGS = "nih_chestxray14", "montgomery"
# threads: set by the command line before the stage runs; max_quarantine: read once a file is damaged
NOT_HERE = {("ProbeJob", "threads"), ("DecoderTraining", "threads"), ("AdaptJob", "threads")}
NOT_HERE |= {("PrepareJob", "max_quarantine")}
PARAMS = {
    "study": "s",
    "hub": False,
    "device": "cpu",
    "threads": 1,
    "datasets": {
        FILMS: {"phantom": {"patients": 40}, "stored": 64, "size": 64},
        LUNGS: {"phantom": {"patients": 12}, "stored": 64, "size": 64},
    },
    "backbones": ["test_vit"],
    "controls": NO_CONTROLS | {"metadata": True, "ceiling": True},
    "embed": {"precision": "fp32"},
    "probe": {"linear": {"epochs": 2}, "logistic": {"values": 2}, "few_shot": {"shots": [1], "draws": 2}},
    "segment": {
        "linear": {"epochs": 1, "learning_rates": [0.01]},
        "unet": {"epochs": 1, "learning_rates": [0.003], "widths": [8, 8]},
        "few_shot": {"shots": [1], "draws": 1, "steps": 2},
        "scratch": {"epochs": 1, "refit_epochs": 1, "learning_rates": [0.01], "width": 4},
    },
    "adapt": {
        "backbones": ["test_vit"],
        "bitfit": None,
        "end_to_end": None,
        "lora": {"backbone_rates": [0.01], "head_rates": [0.01], "rank": 2},
        "classify": {"epochs": 1},
        "segment": {"epochs": 1},
        "few_shot": {"shots": [1], "draws": 1, "steps": 2},
    },
    "score": {"resamples": 100},
    "limit": 30,
}


@pytest.mark.slow
def test_a_stage_reads_every_field_of_its_job(tmp_path, monkeypatch):
    """Over films and masks, frozen, trained and from scratch; fields of excluded values are for messages."""
    read = defaultdict(set)

    def noted(part, name):
        if name in type(part).model_fields:
            read[type(part).__name__].add(name)
        return object.__getattribute__(part, name)

    seen: dict[str, type] = {}
    content = PARAMS | {"backbones": ["test_vit", "unet"], "paths": {"root": str(tmp_path)}}
    streamed = {"datasets": {LUNGS: PARAMS["datasets"][LUNGS]}, "adapt": None, "seed": 1}
    streamed |= {"embed": {"precision": "fp32", "max_dense_cache_gb": 1e-6}}
    for study in (Study(content), Study(content | streamed)):
        for step in (step for step in study.steps.values() if not step.done):
            seen |= {type(part).__name__: type(part) for part in parts(step.job)}
            inputs, runtime = step.inputs, study.runtime(step)
            with monkeypatch.context() as patched:
                patched.setattr(JobPart, "__getattribute__", noted)
                running.stage(step).run(step.job, inputs, runtime)
    unread = {
        (name, field)
        for name, kind in seen.items()
        for field, info in kind.model_fields.items()
        if field not in read[name] and not info.exclude
    }
    assert unread == NOT_HERE


def parts(job):
    """Yield a job and the parts of it."""
    yield job
    for name in type(job).model_fields:
        value = getattr(job, name)
        if isinstance(value, JobPart):
            yield from parts(value)


@pytest.mark.parametrize("limit", [30, None])
def test_a_pilot_depends_on_the_publishers_lists_and_a_whole_dataset_does_not(monkeypatch, limit):
    def prepare() -> str:
        return Study({**PARAMS, "limit": limit}).step("prepare", FILMS).key

    before = prepare()
    entry = catalog.datasets()[FILMS]
    longer = entry.splits["study"].model_copy(update={"val_tail": 3 * entry.splits["study"].val_tail})
    changed = entry.model_copy(update={"splits": {**entry.splits, "study": longer}})
    monkeypatch.setattr(catalog, "datasets", lambda: {**CATALOG, FILMS: changed})
    assert (prepare() != before) == (limit is not None)


CATALOG = catalog.datasets()
READ_BY = {  # the first verbs whose key a fact of a benchmark changes
    "modality": {"retrieve"},
    "blank": {"retrieve"},
    "root": {"retrieve"},
    "stored": {"prepare"},
    "mask": {"prepare"},
    "size": {"embed", "segment", "adapt"},
    "intensity": {"prepare", "embed", "segment", "adapt"},
    "tolerance": {"score"},
}
CHANGES = {
    "modality": "MRI",
    "blank": "zeros",
    "root": "Elsewhere",
    "stored": 128,
    "mask": "labels",
    "size": 128,
    "intensity": catalog.Window(kind="window", low=0, high=9),
    "tolerance": catalog.Tolerance(value=7, source="a test"),
    "title": "Other",
    "licence": "other",
    "citation": "other",
    "gated": True,
    "urls": ["https://example.org"],
}


@pytest.mark.parametrize("fact", CHANGES)
def test_a_fact_of_the_catalog_changes_the_keys_of_what_reads_it_and_of_what_follows(monkeypatch, fact):
    content = {**PARAMS, "datasets": {LUNGS: {"phantom": {"patients": 12}}}}
    before = Study(content).steps
    changed = CATALOG[LUNGS].model_copy(update={fact: CHANGES[fact]})
    monkeypatch.setattr(catalog, "datasets", lambda: {**CATALOG, LUNGS: changed})
    after = Study(content).steps
    moved = {name for name in before if before[name].key != after[name].key}
    own = {  # steps whose job changed, apart from keys of what they depend on
        name[0] for name in moved if before[name].job.model_dump() != after[name].job.model_dump()
    }
    assert own == READ_BY.get(fact, set())
    assert fact in READ_BY or not moved
