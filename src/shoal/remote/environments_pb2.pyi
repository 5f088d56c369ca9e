from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ("protocol",)
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    def __init__(self, protocol: _Optional[int] = ...) -> None: ...

class Description(_message.Message):
    __slots__ = ("protocol", "spec", "num_envs", "free_envs", "socket", "tls_port")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    NUM_ENVS_FIELD_NUMBER: _ClassVar[int]
    FREE_ENVS_FIELD_NUMBER: _ClassVar[int]
    SOCKET_FIELD_NUMBER: _ClassVar[int]
    TLS_PORT_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    spec: str
    num_envs: int
    free_envs: int
    socket: str
    tls_port: int
    def __init__(self, protocol: _Optional[int] = ..., spec: _Optional[str] = ..., num_envs: _Optional[int] = ..., free_envs: _Optional[int] = ..., socket: _Optional[str] = ..., tls_port: _Optional[int] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("number", "open", "reset", "step", "save", "restore", "ping", "resume")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SAVE_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    number: int
    open: OpenRequest
    reset: Reset
    step: Step
    save: Save
    restore: Restore
    ping: Ping
    resume: Resume
    def __init__(self, number: _Optional[int] = ..., open: _Optional[_Union[OpenRequest, _Mapping]] = ..., reset: _Optional[_Union[Reset, _Mapping]] = ..., step: _Optional[_Union[Step, _Mapping]] = ..., save: _Optional[_Union[Save, _Mapping]] = ..., restore: _Optional[_Union[Restore, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ...) -> None: ...

class OpenRequest(_message.Message):
    __slots__ = ("protocol", "num_envs", "playing", "resume_s")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NUM_ENVS_FIELD_NUMBER: _ClassVar[int]
    PLAYING_FIELD_NUMBER: _ClassVar[int]
    RESUME_S_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    num_envs: int
    playing: bool
    resume_s: float
    def __init__(self, protocol: _Optional[int] = ..., num_envs: _Optional[int] = ..., playing: bool = ..., resume_s: _Optional[float] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("session", "description", "idle_s")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    IDLE_S_FIELD_NUMBER: _ClassVar[int]
    session: str
    description: Description
    idle_s: float
    def __init__(self, session: _Optional[str] = ..., description: _Optional[_Union[Description, _Mapping]] = ..., idle_s: _Optional[float] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("session", "request")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    session: str
    request: Request
    def __init__(self, session: _Optional[str] = ..., request: _Optional[_Union[Request, _Mapping]] = ...) -> None: ...

class Closed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Reset(_message.Message):
    __slots__ = ("seeds",)
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    seeds: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, seeds: _Optional[_Iterable[int]] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("first", "count", "action")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    action: bytes
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ..., action: _Optional[bytes] = ...) -> None: ...

class Save(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Restore(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: bytes
    def __init__(self, state: _Optional[bytes] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Resume(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("number", "opened", "rows", "state", "failure", "pong")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    number: int
    opened: Opened
    rows: Rows
    state: State
    failure: Failure
    pong: Ping
    def __init__(self, number: _Optional[int] = ..., opened: _Optional[_Union[Opened, _Mapping]] = ..., rows: _Optional[_Union[Rows, _Mapping]] = ..., state: _Optional[_Union[State, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., pong: _Optional[_Union[Ping, _Mapping]] = ...) -> None: ...

class Rows(_message.Message):
    __slots__ = ("first", "count", "masked", "arrays", "final_obs", "cut")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MASKED_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    FINAL_OBS_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    masked: bool
    arrays: bytes
    final_obs: bytes
    cut: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ..., masked: bool = ..., arrays: _Optional[bytes] = ..., final_obs: _Optional[bytes] = ..., cut: _Optional[_Iterable[str]] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: bytes
    def __init__(self, state: _Optional[bytes] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("kind", "text")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    text: str
    def __init__(self, kind: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...
