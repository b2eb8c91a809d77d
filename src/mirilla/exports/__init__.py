"""Exports: write a trained model for other runtimes, and measure that it still detects the same."""
