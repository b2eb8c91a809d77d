"""The target `web`: one HTML file that detects in a browser."""
