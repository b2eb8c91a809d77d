"""The connection to the bonnet, through Google's aiy.vision."""

import collections
import logging
import time
from collections.abc import Callable

from .decode import min_logit
from .errors import Fault, KitError, explain, sentence
from .model import Classifier, Model
from .result import check_outputs, is_sparse, read_classes, read_result

# One inference. height and width are the picture's, in pixels; picture (JPEG bytes or a Pillow image) and name are
# None for the camera.
Frame = collections.namedtuple("Frame", "detections duration_ms height width picture name")


class _LastWarning(logging.Handler):
    """Keeps the last warning of Google's client: its load_model logs the firmware's refusal and raises nothing."""

    def __init__(self):
        logging.Handler.__init__(self, logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


class Bonnet:
    """A connection to the bonnet with the model loaded.

    Methods raise KitError if retrying does not help, otherwise Fault.

    Args:
        threshold: detections have at least this score.
        sparse: request only the logits above the threshold, where the model and the firmware allow it.
    """

    def __init__(
        self, model: "Model | Classifier", threshold: float, log: "Callable[[str], None]", sparse: bool = True
    ):
        try:
            from aiy.vision import inference
        except ImportError as error:
            raise KitError(
                "Google's aiy.vision cannot be imported (%s). Run this program on the Vision Kit's own image with "
                "its python3, or install aiy-projects-python." % error
            )
        self._api, self._model, self._threshold, self._log = inference, model, threshold, log
        self._was_reset = False
        # a classifier's output is short: it is always requested as a whole
        self._min_logit = None
        if isinstance(model, Model):
            self._min_logit = min_logit(model, max(threshold, model.score_threshold))
        self._sparse = sparse and self._min_logit is not None
        self._sparse_works = False  # whether a sparse answer has arrived
        self._engine = None
        self._camera_runs = False

    def open(self) -> None:
        """Connect, stop what an earlier program left running, and load the model."""
        self.close()
        self._connect("no connection to the bonnet")
        state = self._call(self._client.get_inference_state)
        if state.processing_models:
            self._log("stopping a camera inference that an earlier program left running")
            try:
                self._client.stop_camera_inference()
            except Exception as error:
                self._reset("the camera inference does not stop: %s" % explain(error))
                state = self._call(self._client.get_inference_state)
        name = self._model.bonnet_name
        for other in state.loaded_models:
            if other.startswith("mirilla-") and other != name:
                self._call(self._client.unload_model, other)
        if name not in state.loaded_models:
            self._load()

    def _connect(self, failure: str) -> None:
        try:
            self._engine = self._api.InferenceEngine()
        except Exception as error:
            raise Fault("%s: %s" % (failure, explain(error)))

    @property
    def _client(self):
        """The connection, Google's InferenceEngine."""
        if self._engine is None:
            raise Fault("no connection to the bonnet")
        return self._engine

    def _load(self) -> None:
        refusal = self._try_to_load()
        if refusal is not None and not self._was_reset:
            # An earlier program may have left the bonnet in a bad state or its memory full.
            self._reset("it refused the model: %s" % refusal)
            refusal = self._try_to_load()
        if refusal is not None:
            raise KitError(
                "The bonnet refused the model %s: %s Run 'mirilla doctor' on the .binaryproto, on the computer that "
                "compiled it." % (self._model.name, sentence(refusal))
            )

    def _try_to_load(self) -> "str | None":
        """Load the model. Returns None, or the firmware's reason for its refusal."""
        api, model, warning = self._api, self._model, _LastWarning()
        descriptor = api.ModelDescriptor(
            model.bonnet_name, (1, model.height, model.width, 3), (model.mean, model.stddev), model.graph
        )
        logger = logging.getLogger(api.__name__)
        logger.addHandler(warning)
        propagate, logger.propagate = logger.propagate, False
        try:
            self._call(self._client.load_model, descriptor)
        except Fault as fault:
            if isinstance(fault.__cause__, api.FirmwareVersionException):
                raise KitError(sentence(str(fault.__cause__)))
            raise
        finally:
            logger.propagate = propagate
            logger.removeHandler(warning)
        if model.bonnet_name in self._call(self._client.get_inference_state).loaded_models:
            return None
        return warning.text or "the firmware gives no reason"

    def _reset(self, reason: str) -> None:
        self._was_reset = True
        self._log("resetting the bonnet (%s)" % reason)
        self._call(self._client.reset)
        self.close()
        time.sleep(0.5)
        self._connect("no connection to the bonnet after its reset")

    def _call(self, function, *arguments):
        try:
            return function(*arguments)
        except Exception as error:
            raise Fault(explain(error)) from error

    def _sparse_configs(self) -> "dict[str, object] | None":
        """The request for sparse outputs; None for whole ones."""
        api, model = self._api, self._model
        if not self._sparse or isinstance(model, Classifier):
            return None
        count, columns = len(model.anchors), model.classes + 1
        logits = api.ThresholdingConfig(
            logical_shape=[count, columns], threshold=self._min_logit, top_k=count * model.classes, to_ignore=[(1, 0)]
        )
        codes = api.FromSparseTensorConfig(logical_shape=[count], tensor_name=model.logits_name, squeeze_dims=[1])
        return {model.logits_name: logits, model.codes_name: codes}

    def _request(self, call: "Callable[[dict[str, object] | None], object]"):
        """The answer of call(sparse configs); of call(None) if the firmware does not support sparse outputs."""
        while True:
            try:
                return call(self._sparse_configs())
            except self._api.InferenceException as error:
                if not self._sparse or self._sparse_works:
                    raise Fault(explain(error)) from error
                self._use_whole_outputs(str(error))
            except Exception as error:
                raise Fault(explain(error)) from error

    def _use_whole_outputs(self, reason: str) -> None:
        self._sparse = False
        self._log("the firmware sends no sparse outputs; using whole outputs from here on (%s)" % reason)

    def start_camera(self) -> None:
        """Start the camera inference."""
        name = self._model.bonnet_name
        self._request(lambda configs: self._client.start_camera_inference(name, None, configs))
        self._camera_runs = True

    def camera_frame(self) -> Frame:
        """The camera inference's next frame."""
        try:
            result = self._client.camera_inference()
        except self._api.InferenceException as error:
            if self._sparse and not self._sparse_works:
                self._use_whole_outputs(str(error))
            raise Fault(explain(error)) from error
        except Exception as error:
            raise Fault(explain(error)) from error
        return self._frame(result)

    def image_frame(self, picture, scale_yx: "tuple[float, float]" = (1.0, 1.0)) -> Frame:
        """The frame of JPEG bytes or a Pillow image; scale_yx as in `read_result`."""
        name = self._model.bonnet_name
        result = self._request(lambda configs: self._client.image_inference(name, picture, None, configs))
        return self._frame(result, scale_yx, picture)

    def _frame(self, result, scale_yx: "tuple[float, float]" = (1.0, 1.0), picture=None) -> Frame:
        model = self._model
        check_outputs(model, result)
        if isinstance(model, Classifier):
            found = read_classes(model, result, self._threshold)
        else:
            sparse = is_sparse(model, result, self._sparse)
            self._sparse_works = self._sparse_works or sparse
            found = read_result(model, result, sparse, self._threshold, scale_yx)
        return Frame(found, result.duration_ms, result.height, result.width, picture, None)

    def temperature(self) -> "float | None":
        """The bonnet's temperature in degrees Celsius, if it is known."""
        try:
            value = self._client.get_system_info().temperature_celsius
        except Exception:
            return None
        return round(value, 1) if 0 < value < 200 else None

    def close(self) -> None:
        """Stop the camera inference and disconnect. Never raises."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        if self._camera_runs:
            try:
                engine.stop_camera_inference()
            except Exception:
                pass
        self._camera_runs = False
        try:
            engine.close()
        except Exception:
            pass
