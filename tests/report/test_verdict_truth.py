"""The sentences of simulated studies, parsed; benchmarks/verdict_truth.py does it in full."""

import pytest
from verdict_truth import Condition, run, table


@pytest.mark.slow
def test_sentences_of_superiority_are_rarely_false_where_all_rows_are_equal():
    found = run(Condition("auroc", 60, 8), trials=80, resamples=200).mean()
    assert found["false_claim"] <= 0.05 + 2.5 * (0.05 * 0.95 / 80) ** 0.5
    assert found["winner_covers"] >= 0.93 - 2.5 * (0.07 * 0.93 / 80) ** 0.5
    assert found["bias_corrected"] < found["bias_measured"]


@pytest.mark.slow
def test_a_true_lead_is_claimed_in_words_that_are_parsed():
    condition = Condition("auroc", 400, 4, gap=0.1, lead=True)
    found = run(condition, trials=20, resamples=200).mean()
    assert found["power"] > 0.8
    assert found["false_claim"] == 0
    assert table({condition: found}).count("\n") == 2


@pytest.mark.slow
def test_a_recommendation_over_tasks_claims_nothing_where_all_rows_are_equal():
    found = run(Condition("auroc", 60, 4, tasks=3), trials=40, resamples=200).mean()
    assert found["false_claim"] <= 0.05 + 2.5 * (0.05 * 0.95 / 40) ** 0.5
