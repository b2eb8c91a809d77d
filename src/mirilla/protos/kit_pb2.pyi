from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Rectangle(_message.Message):
    __slots__ = ("x", "y", "width", "height")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    x: int
    y: int
    width: int
    height: int
    def __init__(self, x: _Optional[int] = ..., y: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class TensorShape(_message.Message):
    __slots__ = ("batch", "height", "width", "depth")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    batch: int
    height: int
    width: int
    depth: int
    def __init__(self, batch: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., depth: _Optional[int] = ...) -> None: ...

class ByteTensor(_message.Message):
    __slots__ = ("shape", "data")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    shape: TensorShape
    data: bytes
    def __init__(self, shape: _Optional[_Union[TensorShape, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Tuple(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...

class FloatTensor(_message.Message):
    __slots__ = ("shape", "data", "indices")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    shape: TensorShape
    data: _containers.RepeatedScalarFieldContainer[float]
    indices: _containers.RepeatedCompositeFieldContainer[Tuple]
    def __init__(self, shape: _Optional[_Union[TensorShape, _Mapping]] = ..., data: _Optional[_Iterable[float]] = ..., indices: _Optional[_Iterable[_Union[Tuple, _Mapping]]] = ...) -> None: ...

class ToIgnore(_message.Message):
    __slots__ = ("dim", "label")
    DIM_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    dim: int
    label: int
    def __init__(self, dim: _Optional[int] = ..., label: _Optional[int] = ...) -> None: ...

class Thresholding(_message.Message):
    __slots__ = ("threshold", "top_k", "to_ignore")
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TO_IGNORE_FIELD_NUMBER: _ClassVar[int]
    threshold: float
    top_k: int
    to_ignore: _containers.RepeatedCompositeFieldContainer[ToIgnore]
    def __init__(self, threshold: _Optional[float] = ..., top_k: _Optional[int] = ..., to_ignore: _Optional[_Iterable[_Union[ToIgnore, _Mapping]]] = ...) -> None: ...

class FromSparseTensor(_message.Message):
    __slots__ = ("tensor_name", "squeeze_dims")
    TENSOR_NAME_FIELD_NUMBER: _ClassVar[int]
    SQUEEZE_DIMS_FIELD_NUMBER: _ClassVar[int]
    tensor_name: str
    squeeze_dims: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tensor_name: _Optional[str] = ..., squeeze_dims: _Optional[_Iterable[int]] = ...) -> None: ...

class SparseConfig(_message.Message):
    __slots__ = ("logical_shape", "thresholding", "from_sparse_tensor")
    LOGICAL_SHAPE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDING_FIELD_NUMBER: _ClassVar[int]
    FROM_SPARSE_TENSOR_FIELD_NUMBER: _ClassVar[int]
    logical_shape: Tuple
    thresholding: Thresholding
    from_sparse_tensor: FromSparseTensor
    def __init__(self, logical_shape: _Optional[_Union[Tuple, _Mapping]] = ..., thresholding: _Optional[_Union[Thresholding, _Mapping]] = ..., from_sparse_tensor: _Optional[_Union[FromSparseTensor, _Mapping]] = ...) -> None: ...

class TensorNormalizer(_message.Message):
    __slots__ = ("mean", "stddev")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STDDEV_FIELD_NUMBER: _ClassVar[int]
    mean: float
    stddev: float
    def __init__(self, mean: _Optional[float] = ..., stddev: _Optional[float] = ...) -> None: ...

class LoadModel(_message.Message):
    __slots__ = ("model_name", "input_shape", "input_normalizer", "compute_graph")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    INPUT_NORMALIZER_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_GRAPH_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    input_shape: TensorShape
    input_normalizer: TensorNormalizer
    compute_graph: bytes
    def __init__(self, model_name: _Optional[str] = ..., input_shape: _Optional[_Union[TensorShape, _Mapping]] = ..., input_normalizer: _Optional[_Union[TensorNormalizer, _Mapping]] = ..., compute_graph: _Optional[bytes] = ...) -> None: ...

class UnloadModel(_message.Message):
    __slots__ = ("model_name",)
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    def __init__(self, model_name: _Optional[str] = ...) -> None: ...

class ImageInference(_message.Message):
    __slots__ = ("model_name", "tensor", "params", "sparse_configs")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class SparseConfigsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: SparseConfig
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[SparseConfig, _Mapping]] = ...) -> None: ...
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    SPARSE_CONFIGS_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    tensor: ByteTensor
    params: _containers.ScalarMap[str, str]
    sparse_configs: _containers.MessageMap[str, SparseConfig]
    def __init__(self, model_name: _Optional[str] = ..., tensor: _Optional[_Union[ByteTensor, _Mapping]] = ..., params: _Optional[_Mapping[str, str]] = ..., sparse_configs: _Optional[_Mapping[str, SparseConfig]] = ...) -> None: ...

class StartCameraInference(_message.Message):
    __slots__ = ("model_name", "window", "params", "sparse_configs")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class SparseConfigsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: SparseConfig
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[SparseConfig, _Mapping]] = ...) -> None: ...
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    SPARSE_CONFIGS_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    window: Rectangle
    params: _containers.ScalarMap[str, str]
    sparse_configs: _containers.MessageMap[str, SparseConfig]
    def __init__(self, model_name: _Optional[str] = ..., window: _Optional[_Union[Rectangle, _Mapping]] = ..., params: _Optional[_Mapping[str, str]] = ..., sparse_configs: _Optional[_Mapping[str, SparseConfig]] = ...) -> None: ...

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Request(_message.Message):
    __slots__ = ("load_model", "unload_model", "image_inference", "start_camera_inference", "camera_inference", "stop_camera_inference", "get_camera_state", "imu_self_test", "get_firmware_info", "get_system_info", "get_inference_state", "reset")
    LOAD_MODEL_FIELD_NUMBER: _ClassVar[int]
    UNLOAD_MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_INFERENCE_FIELD_NUMBER: _ClassVar[int]
    START_CAMERA_INFERENCE_FIELD_NUMBER: _ClassVar[int]
    CAMERA_INFERENCE_FIELD_NUMBER: _ClassVar[int]
    STOP_CAMERA_INFERENCE_FIELD_NUMBER: _ClassVar[int]
    GET_CAMERA_STATE_FIELD_NUMBER: _ClassVar[int]
    IMU_SELF_TEST_FIELD_NUMBER: _ClassVar[int]
    GET_FIRMWARE_INFO_FIELD_NUMBER: _ClassVar[int]
    GET_SYSTEM_INFO_FIELD_NUMBER: _ClassVar[int]
    GET_INFERENCE_STATE_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    load_model: LoadModel
    unload_model: UnloadModel
    image_inference: ImageInference
    start_camera_inference: StartCameraInference
    camera_inference: Empty
    stop_camera_inference: Empty
    get_camera_state: Empty
    imu_self_test: Empty
    get_firmware_info: Empty
    get_system_info: Empty
    get_inference_state: Empty
    reset: Empty
    def __init__(self, load_model: _Optional[_Union[LoadModel, _Mapping]] = ..., unload_model: _Optional[_Union[UnloadModel, _Mapping]] = ..., image_inference: _Optional[_Union[ImageInference, _Mapping]] = ..., start_camera_inference: _Optional[_Union[StartCameraInference, _Mapping]] = ..., camera_inference: _Optional[_Union[Empty, _Mapping]] = ..., stop_camera_inference: _Optional[_Union[Empty, _Mapping]] = ..., get_camera_state: _Optional[_Union[Empty, _Mapping]] = ..., imu_self_test: _Optional[_Union[Empty, _Mapping]] = ..., get_firmware_info: _Optional[_Union[Empty, _Mapping]] = ..., get_system_info: _Optional[_Union[Empty, _Mapping]] = ..., get_inference_state: _Optional[_Union[Empty, _Mapping]] = ..., reset: _Optional[_Union[Empty, _Mapping]] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("index", "timestamp_us", "image")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_US_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    index: int
    timestamp_us: int
    image: ByteTensor
    def __init__(self, index: _Optional[int] = ..., timestamp_us: _Optional[int] = ..., image: _Optional[_Union[ByteTensor, _Mapping]] = ...) -> None: ...

class InferenceResult(_message.Message):
    __slots__ = ("model_name", "width", "height", "window", "duration_ms", "tensors", "frame")
    class TensorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: FloatTensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[FloatTensor, _Mapping]] = ...) -> None: ...
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    width: int
    height: int
    window: Rectangle
    duration_ms: int
    tensors: _containers.MessageMap[str, FloatTensor]
    frame: Frame
    def __init__(self, model_name: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., window: _Optional[_Union[Rectangle, _Mapping]] = ..., duration_ms: _Optional[int] = ..., tensors: _Optional[_Mapping[str, FloatTensor]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class InferenceState(_message.Message):
    __slots__ = ("loaded_models", "processing_models")
    LOADED_MODELS_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_MODELS_FIELD_NUMBER: _ClassVar[int]
    loaded_models: _containers.RepeatedScalarFieldContainer[str]
    processing_models: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, loaded_models: _Optional[_Iterable[str]] = ..., processing_models: _Optional[_Iterable[str]] = ...) -> None: ...

class CameraState(_message.Message):
    __slots__ = ("running", "width", "height")
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    running: bool
    width: int
    height: int
    def __init__(self, running: bool = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class FirmwareInfo(_message.Message):
    __slots__ = ("major_version", "minor_version")
    MAJOR_VERSION_FIELD_NUMBER: _ClassVar[int]
    MINOR_VERSION_FIELD_NUMBER: _ClassVar[int]
    major_version: int
    minor_version: int
    def __init__(self, major_version: _Optional[int] = ..., minor_version: _Optional[int] = ...) -> None: ...

class SystemInfo(_message.Message):
    __slots__ = ("uptime_seconds", "temperature_celsius")
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    uptime_seconds: int
    temperature_celsius: float
    def __init__(self, uptime_seconds: _Optional[int] = ..., temperature_celsius: _Optional[float] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("code", "message")
    class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OK: _ClassVar[Status.Code]
        ERROR: _ClassVar[Status.Code]
    OK: Status.Code
    ERROR: Status.Code
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: Status.Code
    message: str
    def __init__(self, code: _Optional[_Union[Status.Code, str]] = ..., message: _Optional[str] = ...) -> None: ...

class Response(_message.Message):
    __slots__ = ("status", "inference_result", "camera_state", "firmware_info", "system_info", "inference_state")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_RESULT_FIELD_NUMBER: _ClassVar[int]
    CAMERA_STATE_FIELD_NUMBER: _ClassVar[int]
    FIRMWARE_INFO_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_INFO_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_STATE_FIELD_NUMBER: _ClassVar[int]
    status: Status
    inference_result: InferenceResult
    camera_state: CameraState
    firmware_info: FirmwareInfo
    system_info: SystemInfo
    inference_state: InferenceState
    def __init__(self, status: _Optional[_Union[Status, _Mapping]] = ..., inference_result: _Optional[_Union[InferenceResult, _Mapping]] = ..., camera_state: _Optional[_Union[CameraState, _Mapping]] = ..., firmware_info: _Optional[_Union[FirmwareInfo, _Mapping]] = ..., system_info: _Optional[_Union[SystemInfo, _Mapping]] = ..., inference_state: _Optional[_Union[InferenceState, _Mapping]] = ...) -> None: ...
