from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PolicyQuestion(_message.Message):
    __slots__ = ("protocol",)
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    def __init__(self, protocol: _Optional[int] = ...) -> None: ...

class PolicyDescription(_message.Message):
    __slots__ = ("protocol", "spec", "spec_sha256", "run", "algo", "most_rows", "caller", "options", "idle_s")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    SPEC_SHA256_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ALGO_FIELD_NUMBER: _ClassVar[int]
    MOST_ROWS_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    IDLE_S_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    spec: str
    spec_sha256: str
    run: str
    algo: str
    most_rows: int
    caller: _containers.RepeatedScalarFieldContainer[str]
    options: int
    idle_s: float
    def __init__(self, protocol: _Optional[int] = ..., spec: _Optional[str] = ..., spec_sha256: _Optional[str] = ..., run: _Optional[str] = ..., algo: _Optional[str] = ..., most_rows: _Optional[int] = ..., caller: _Optional[_Iterable[str]] = ..., options: _Optional[int] = ..., idle_s: _Optional[float] = ...) -> None: ...

class PolicyRequest(_message.Message):
    __slots__ = ("open", "act")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    ACT_FIELD_NUMBER: _ClassVar[int]
    open: PolicyOpen
    act: PolicyStep
    def __init__(self, open: _Optional[_Union[PolicyOpen, _Mapping]] = ..., act: _Optional[_Union[PolicyStep, _Mapping]] = ...) -> None: ...

class PolicyOpen(_message.Message):
    __slots__ = ("protocol", "rows", "spec_sha256", "sample", "seed")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SPEC_SHA256_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    rows: int
    spec_sha256: str
    sample: bool
    seed: int
    def __init__(self, protocol: _Optional[int] = ..., rows: _Optional[int] = ..., spec_sha256: _Optional[str] = ..., sample: bool = ..., seed: _Optional[int] = ...) -> None: ...

class PolicyStep(_message.Message):
    __slots__ = ("obs", "start", "mask")
    OBS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    obs: bytes
    start: bytes
    mask: bytes
    def __init__(self, obs: _Optional[bytes] = ..., start: _Optional[bytes] = ..., mask: _Optional[bytes] = ...) -> None: ...

class PolicyReply(_message.Message):
    __slots__ = ("opened", "action", "refused")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    opened: PolicyDescription
    action: bytes
    refused: str
    def __init__(self, opened: _Optional[_Union[PolicyDescription, _Mapping]] = ..., action: _Optional[bytes] = ..., refused: _Optional[str] = ...) -> None: ...
