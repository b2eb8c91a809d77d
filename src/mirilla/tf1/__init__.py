"""The scripts of the guide of 2018, under their old names and with their old flags (`mirilla tf1 SCRIPT ...`).

Each module is one script or a few similar ones; `flags` has the table of all their flags.
"""
