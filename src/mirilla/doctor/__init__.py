"""The doctor: rules of the Vision Kit, and checks of graphs, compiled models and pipelines; see `doctor.examine`."""
