"""The main job: from labelled photos to a measured detector, in stages that resume where they stopped."""
