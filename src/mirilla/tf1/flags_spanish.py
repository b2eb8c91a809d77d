"""The notes of `flags.FLAGS` in Spanish, for docs/guia-2018.md."""

from __future__ import annotations

_OTHER_FILES = "con los otros dos archivos en lugar de pipeline_config_path"

NOTES = {
    "folder with the photos or the .zip files that you already have; nothing is downloaded": (
        "carpeta con las fotos o los .zip que ya se tienen; no se descarga nada"
    ),
    "with --from: copy the photos instead of linking their folders": (
        "con --from: copiar las fotos en lugar de enlazar sus carpetas"
    ),
    "table of the boxes": "tabla de las cajas",
    "TFRecord file to write": "archivo TFRecord que se escribe",
    "folder of the photos": "carpeta de las fotos",
    "label map, for classes other than 'face' (the original was edited for them)": (
        "mapa de etiquetas, para clases distintas de 'face' (en el original se editaba el programa)"
    ),
    "folder for checkpoints and events": "carpeta para checkpoints y eventos",
    "the pipeline.config": "el pipeline.config",
    "train until this step; default: train_config.num_steps": (
        "entrenar hasta este paso; por defecto: train_config.num_steps"
    ),
    "evaluate on the training records; only with checkpoint_dir": (
        "evaluar con los datos de entrenamiento; solo con checkpoint_dir"
    ),
    "evaluate on one of n examples": "evaluar con uno de cada n ejemplos",
    "evaluate on one of n training examples; only with eval_training_data": (
        "evaluar con uno de cada n ejemplos de entrenamiento; solo con eval_training_data"
    ),
    "only evaluate the checkpoints of this folder": "solo evaluar los checkpoints de esta carpeta",
    "with checkpoint_dir: evaluate once, do not wait for more checkpoints": (
        "con checkpoint_dir: evaluar una vez, sin esperar más checkpoints"
    ),
    "load_pretrained=false: do not start from fine_tune_checkpoint": (
        "load_pretrained=false: no empezar desde fine_tune_checkpoint"
    ),
    "an evaluation that fails ends the program with the reason": (
        "una evaluación que falla termina el programa e indica el motivo"
    ),
    "write TensorFlow checkpoints too, for old tools": (
        "escribir también checkpoints de TensorFlow, para herramientas antiguas"
    ),
    "image_tensor, encoded_image_string_tensor or tf_example": (
        "image_tensor, encoded_image_string_tensor o tf_example"
    ),
    "shape of image_tensor, such as 1,-1,-1,3; -1 or None is any size (default: any)": (
        "forma de image_tensor, por ejemplo 1,-1,-1,3; -1 o None es cualquier tamaño (por defecto: cualquiera)"
    ),
    "the checkpoint: MODEL_DIR/model.ckpt-STEP": "el checkpoint: MODEL_DIR/model.ckpt-PASO",
    "folder to write": "carpeta que se escribe",
    "text that is merged into the pipeline.config": "texto que se añade al pipeline.config",
    "write inference_graph.pbtxt, the graph with variables, in text form": (
        "escribir inference_graph.pbtxt, el grafo con variables, en forma de texto"
    ),
    "the graph's outputs are fixed": "las salidas del grafo son fijas",
    "Mirilla's networks have no side inputs": "las redes de Mirilla no tienen entradas laterales",
    "the pipeline.config; or the three files below": "el pipeline.config; o los tres archivos siguientes",
    "a TrainConfig, with the two other files instead of pipeline_config_path": f"un TrainConfig, {_OTHER_FILES}",
    "an InputReader, with the two other files instead of pipeline_config_path": f"un InputReader, {_OTHER_FILES}",
    "a DetectionModel, with the two other files instead of pipeline_config_path": (
        f"un DetectionModel, {_OTHER_FILES}"
    ),
    "an EvalConfig, with the two other files instead of pipeline_config_path": f"un EvalConfig, {_OTHER_FILES}",
    "train on the CPU": "entrenar en la CPU",
    "one process trains on one GPU": "un proceso entrena en una GPU",
    "TensorFlow's clusters are not supported": "no se admiten los clústeres de TensorFlow",
    "folder of the checkpoints": "carpeta de los checkpoints",
    "folder for the events": "carpeta para los eventos",
    "evaluate on the training records": "evaluar con los datos de entrenamiento",
    "evaluate once, do not wait for more checkpoints": "evaluar una vez, sin esperar más checkpoints",
    "Mirilla prints its messages on the terminal": "Mirilla escribe sus mensajes en la terminal",
    "messages have no prefix": "los mensajes no tienen prefijo",
    "no log files are written there; the training's log is in its own folder": (
        "no se escriben registros ahí; el registro del entrenamiento está en su propia carpeta"
    ),
    "check the flags and end": "comprobar las opciones y terminar",
    "start Python's own tool instead, for example: python -m pdb -m mirilla tf1 ...": (
        "en su lugar, la herramienta de Python, por ejemplo: python -m pdb -m mirilla tf1 ..."
    ),
    "there is no debugger inside": "no hay un depurador incluido",
    "there is no profiler inside": "no hay un perfilador incluido",
    "it belongs to run_with_profiling": "pertenece a run_with_profiling",
    "list the flags; also -h and -?": "mostrar las opciones; también -h y -?",
    "list the flags": "mostrar las opciones",
    "list the flags (as text, not as XML)": "mostrar las opciones (como texto, no como XML)",
    "read more flags from a file, one per line": "leer más opciones de un archivo, una por línea",
    "names of flags that may be unknown, separated by commas": (
        "nombres de opciones que pueden ser desconocidas, separados por comas"
    ),
}
