"""`mirilla tf1`: the scripts of the guide of 2018, with their own flags."""

from __future__ import annotations

import argparse

EPILOG = """scripts, also under their old file names (001_down_data.py, model_main.py, legacy/train.py):
  down_data               download WIDER FACE to data/, or take your own photos (--from DIR)
  data_to_pascal_xml      keep the large, sharp faces, as XML files in data/tf_wider_{train,val}
  xml_to_csv              the XML files as data/tf_wider_train/train.csv and data/tf_wider_val/val.csv
  generate_tfrecord       a table and its photos as a TFRecord file
  model_main              train and evaluate
  export_inference_graph  write a checkpoint as a frozen graph
  train, eval             the legacy scripts

'mirilla tf1 SCRIPT --help' lists the flags of a script. docs/guide-2018.md has the guide, command by command."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("script", metavar="SCRIPT", help="name of a script, see below")
    parser.add_argument("flags", nargs=argparse.REMAINDER, metavar="--flag=value", help="the script's own flags")


def run(args: argparse.Namespace) -> int:
    from mirilla.tf1.scripts import run_script

    return run_script(args.script, args.flags)
