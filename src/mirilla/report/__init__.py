"""Reports of a training run: an HTML page with charts, and pictures with boxes."""
