"""How good predictions are, how sure that is, and whether two differ; numpy only, from stored predictions alone."""
