"""A real server around shoal's own sampler: it speaks as vLLM and SGLang do, and fails when it is told to."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import torch

from shoal.llm.model_folder import load_folder
from shoal.llm.sampler.cache import Cache
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.passes import FastPass
from shoal.llm.sampler.progress import Progress
from shoal.llm.sampler.protocol import Drawing, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.weights import Weights


@dataclass
class Faults:
    """What goes wrong; nothing at first."""

    keeps_head: bool = False
    """Whether the output head stays as it was when weights are taken."""
    breaks_after: int | None = None
    """Tokens after which every reply that is streamed breaks off, once."""
    statuses: list[int] = field(default_factory=list)
    """What the next requests for answers are refused with."""
    drops_logprobs: bool = False
    drops_ids: bool = False
    """Whether completions hold text alone."""
    slow_s: float = 0.0
    """Before each step."""
    adds_to_tokens: int = 0


class EngineServer:
    """It serves until `close`. `url` is where."""

    def __init__(self, model: LanguageModel, drawing: Drawing, *, slots: int = 64, port: int = 0) -> None:
        self.faults = Faults()
        self.model, self.drawing = model, drawing
        self.max_length = model.architecture.max_length
        self.sampler = LocalSampler(model, drawing, slots=slots, seed=5)
        self.folder = Path()
        self.label, self.labels = "default", {0: "default"}
        self.paused, self.requests, self.taken = False, 0, 0
        self.lock = threading.RLock()
        self.listeners: dict[int, queue.SimpleQueue[Any]] = {}
        self.spans: dict[tuple[int, int], list[list[Any]]] = defaultdict(list)
        self.counts: dict[tuple[int, int], int] = defaultdict(int)
        self._done = threading.Event()
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._http.engine = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._threads = [
            threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True),
            threading.Thread(target=self._decode, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def port(self) -> int:
        return self._http.server_address[1]

    @property
    def weights(self) -> Weights:
        """Those that it draws with."""
        assert isinstance(self.sampler._pass, FastPass)
        return self.sampler._pass.weights

    def close(self) -> None:
        """Like a process that dies: whoever reads sees the connection end."""
        self._done.set()
        self._http.shutdown()
        self._http.server_close()
        for listener in list(self.listeners.values()):
            listener.put(None)
        for thread in self._threads:
            thread.join(5)

    def begin(self, token: list[int], count: int, max_tokens: int) -> tuple[int, queue.SimpleQueue[Any]]:
        with self.lock:
            key = self.requests
            self.requests += 1
            listener = self.listeners[key] = queue.SimpleQueue()
            # Its answers are cut where the request says: what they begin with is no part of the prompt for it.
            rest = self.drawing.max_tokens - max_tokens
            prompt, begun = (token, []) if not rest else (token[:-rest], token[-rest:])
            request = Request(key, tuple(prompt), tuple(range(count)), tuple(tuple(begun) for _ in range(count)))
            self.sampler.submit([request])
            return key, listener

    def take(self, folder: Path, label: str) -> None:
        with self.lock:
            head = self.weights.head
            self.taken += 1
            self.model = load_folder(folder)
            self.sampler.load(self.taken, self.model)
            if self.faults.keeps_head:
                object.__setattr__(self.weights, "head", head)
            self.label = self.labels[self.taken] = label

    @torch.inference_mode()
    def prefill(self, token: list[int]) -> list[float]:
        """Of each token but the first, by the weights that it draws with."""
        with self.lock:
            cache = Cache(self.model.architecture, 1, self.sampler.device, torch.float32)
            cache.grow(len(token))
            found: list[float] = []
            assert self.sampler._pass is not None
            for at, (one, following) in enumerate(pairwise(token)):
                logits = self.sampler._pass.decode(cache, torch.tensor([one]), torch.tensor([at]), at + 1)
                found.append(float(logits.log_softmax(-1)[0, following]))
            return found

    def _decode(self) -> None:
        while not self._done.is_set():
            time.sleep(self.faults.slow_s)
            with self.lock:
                if self.paused or not self.sampler.pending:
                    idle = True
                else:
                    idle = False
                    self.sampler.poll(max_steps=1)
                    if self.sampler.progress is not None:
                        self._tell(self.sampler.progress)
            time.sleep(0.002 if idle else 0)

    def _tell(self, said: Progress) -> None:
        for row, key in enumerate(zip(said.key.tolist(), said.number.tolist(), strict=True)):
            spans, label = self.spans[key], self.labels[said.version]
            count = self.counts[key] = self.counts[key] + 1
            if not spans or spans[-1][0] != label:
                spans.append([label, count - 1, count])
            spans[-1][2] = count
            kept = [] if said.kept is None else np.flatnonzero(np.unpackbits(said.kept[row], bitorder="little"))
            told = (
                key[1],
                int(said.token[row]),
                float(said.logprob[row]),
                [int(one) for one in kept],
                int(said.end[row]),
                spans,
            )
            self.listeners[key[0]].put(told)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    engine: EngineServer


class _Handler(BaseHTTPRequestHandler):
    @property
    def engine(self) -> EngineServer:
        assert isinstance(self.server, _Server)
        return self.server.engine

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        engine = self.engine
        path = urlsplit(self.path).path
        said: dict[str, Any] = {
            "/v1/models": {"data": [{"id": "toy", "max_model_len": engine.max_length}]},
            "/weight_info": {"weight_version": engine.label},
            "/model_info": {"model_path": "toy", "weight_version": engine.label},
            "/server_info": {"context_length": engine.max_length},
        }
        self._reply(said.get(path))

    def do_POST(self) -> None:
        engine, split = self.engine, urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size) or b"{}")
        query = parse_qs(split.query)
        with suppress(ConnectionError):
            if split.path in ("/inference/v1/generate", "/generate"):
                self._generate(body, sglang=split.path == "/generate")
            elif split.path == "/v1/completions":
                self._complete(body)
            elif split.path == "/pause":
                engine.paused = query["mode"] == ["keep"]
                self._reply({})
            elif split.path == "/pause_generation":
                engine.paused = body["mode"] in ("in_place", "retract")
                self._reply({})
            elif split.path in ("/resume", "/continue_generation"):
                engine.paused = False
                self._reply({})
            elif split.path == "/update_weights":
                engine.folder = Path(body["update_info"]["path"]).parent
                self._reply({})
            elif split.path == "/finish_weight_update":
                engine.take(engine.folder, body["weight_version"])
                self._reply({})
            elif split.path == "/update_weights_from_disk":
                engine.take(Path(body["model_path"]), body["weight_version"])
                self._reply({"success": True})
            else:
                self._reply({} if split.path in ("/start_weight_update", "/reset_prefix_cache") else None)

    def _reply(self, said: Any, status: int = 200) -> None:
        data = json.dumps(said).encode()
        self.send_response(404 if said is None else status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _generate(self, body: dict[str, Any], *, sglang: bool) -> None:
        engine = self.engine
        faults, sampling = engine.faults, body["sampling_params"]
        if faults.statuses and body.get("stream"):
            self._reply({"error": "told to fail"}, faults.statuses.pop())
            return
        token = body["input_ids"] if sglang else body["token_ids"]
        if not body.get("stream"):
            found = engine.prefill(token)
            if sglang:
                pairs = [[None, token[0]], *([x, t] for x, t in zip(found, token[1:], strict=True))]
                self._reply({"meta_info": {"input_token_logprobs": pairs}})
            else:
                of = [{str(t): {"logprob": x}} for x, t in zip(found, token[1:], strict=True)]
                self._reply({"prompt_logprobs": [None, *of]})
            return
        limit = sampling["max_new_tokens" if sglang else "max_tokens"]
        self._stream(token, sampling["n"], limit, _sglang if sglang else _vllm)

    def _complete(self, body: dict[str, Any]) -> None:
        token = body["prompt"]
        if not body.get("stream"):
            chances = [None, *self.engine.prefill(token), -1.0]
            self._reply({"choices": [{"logprobs": {"token_logprobs": chances}}]})
            return
        self._stream(token, body["n"], body["max_tokens"], _openai)

    def _stream(self, token: list[int], count: int, limit: int, event_of: Callable[..., dict[str, Any]]) -> None:
        """Answers, event by event, each told of from its beginning."""
        faults = self.engine.faults
        _, listener = self.engine.begin(token, count, limit)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        answers: dict[int, list[Any]] = defaultdict(list)
        open_ones, sent = count, 0
        while open_ones:
            told = listener.get()
            if told is None or (faults.breaks_after is not None and sent >= faults.breaks_after):
                faults.breaks_after = None
                return
            answers[told[0]].append(told)
            open_ones -= bool(told[4])
            sent += 1
            event = event_of(answers[told[0]], faults)
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")


REASONS = {0: None, Progress.ENDED: "stop", Progress.CUT: "length"}


def _versions(spans: list[list[Any]]) -> list[dict[str, Any]]:
    return [{"version": label, "start": start, "end": end} for label, start, end in spans]


def _vllm(answer: list[Any], faults: Faults) -> dict[str, Any]:
    index, token, logprob, kept, end, spans = answer[-1]
    token += faults.adds_to_tokens
    top = [{"token_id": one, "logprob": -1.0} for one in kept] + [{"token_id": 0, "logprob": -9999.0}]
    content = [{"token_id": token, "logprob": logprob, "top_logprobs": top}]
    choice: dict[str, Any] = {"index": index, "token_ids": [token], "finish_reason": REASONS[end]}
    choice["logprobs"] = None if faults.drops_logprobs else {"content": content}
    choice["weight_versions"] = _versions(spans) if end else None
    return {"choices": [choice]}


def _sglang(answer: list[Any], faults: Faults) -> dict[str, Any]:
    del faults
    index, _, _, _, end, spans = answer[-1]
    meta: dict[str, Any] = {
        "output_token_logprobs": [[one[2], one[1], None] for one in answer],
        "output_token_sampling_mask": [one[3] for one in answer],
        "output_token_sampling_logprobs": [one[2] for one in answer],
        "completion_tokens": len(answer),
        "weight_versions": _versions(spans),
        "finish_reason": {"type": REASONS[end]} if end else None,
    }
    return {"index": index, "meta_info": meta}


def _openai(answer: list[Any], faults: Faults) -> dict[str, Any]:
    index, token, logprob, _, end, _ = answer[-1]
    written = "a" if faults.drops_ids else f"token_id:{token}"
    said = {"tokens": [written], "token_logprobs": [logprob]}
    return {"choices": [{"index": index, "text": "", "logprobs": said, "finish_reason": REASONS[end]}]}
