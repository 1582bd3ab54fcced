"""Splits by patient, and the gate that finds what leaks between the parts."""
