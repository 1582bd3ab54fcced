import re

import pytest
import synthetic_study

from radprobe.commands import power
from radprobe.study import Study


def number(text):
    return float(text.replace(",", ""))


def test_it_says_how_many_test_patients_a_margin_takes_from_val_alone(finished, capsys):
    study = synthetic_study.study(finished)
    power.run(study)
    said = capsys.readouterr().out
    (lungs,) = (line for line in said.splitlines() if line.startswith("montgomery"))
    assert "2 backbones on 12 validation patients" in lungs
    needed, low, high = map(number, re.search(r"about ([\d,]+) test patients \(([\d,]+) to ([\d,]+)\)", lungs).groups())
    assert low < needed < high
    assert lungs.endswith("The test set has 24.")
    (films,) = (line for line in said.splitlines() if line.startswith("nih_chestxray14"))
    assert "logistic" in films  # the protocol of the verdict
    assert "with the rarer label" in films


def test_a_smaller_margin_takes_more_patients(finished, capsys):
    counts = []
    for margin in (0.002, 0.01):
        content = synthetic_study.params(finished, score={"resamples": 200, "margin": margin})
        power.run(Study(content))
        said = capsys.readouterr().out
        counts.append(number(re.search(r"montgomery.*?about ([\d,]+) test patients", said).group(1)))
    assert counts[0] == pytest.approx(25 * counts[1], rel=0.1)


def test_without_predictions_it_asks_for_a_pilot(tmp_path, capsys):
    power.run(synthetic_study.study(tmp_path))
    said = capsys.readouterr().out
    assert "montgomery: no predictions of two backbones yet; run a pilot first" in said
    assert "mni152" not in said


def test_predictions_of_test_are_not_read(root, capsys):
    study = synthetic_study.study(root)
    power.run(study)
    before = capsys.readouterr().out
    for step in study.steps.values():
        if step.verb == "probe" and step.dataset == "nih_chestxray14":
            _spoil_test(step)
    power.run(study)
    assert capsys.readouterr().out == before


def _spoil_test(step):
    from radprobe.artifacts import Predictions

    predictions = Predictions.load(step.folder)
    scores = [name for name in predictions.table if name.startswith("score:")]
    predictions.table.loc[predictions.table["part"] == "test", scores] = 0.0
    predictions.save(step.place)
