"""Targets: the forms in which a trained network is written."""
