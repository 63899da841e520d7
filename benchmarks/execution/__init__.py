"""Measure how fast rollouts are graded, beside other ways of doing it and the engine's own limit."""
