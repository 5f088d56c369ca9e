"""The client of a policy's server: acts as the loaded policy would, without torch and without the run."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import numpy as np

from shoal.deploy.description import sha256_of
from shoal.deploy.policy_sessions import PROTOCOL
from shoal.envs.handed import arrays_of, check_alone
from shoal.envs.masks import MaskReader
from shoal.remote import policies_pb2 as wire
from shoal.remote import policies_pb2_grpc as service
from shoal.remote.address import ENCRYPTED, SCHEME, split_port
from shoal.remote.batches import Batch
from shoal.remote.description import read_spec
from shoal.remote.settings import Remote
from shoal.remote.streams import detail
from shoal.remote.trust import channel_to
from shoal.types import ConfigError, EnvError, check_seed, select
from shoal.types.arguments import flag_of, number_of, object_of, string_of
from shoal.types.calls import all_worded, worded
from shoal.types.space_text import difference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

    from shoal.types import Spec, Tree


@worded()
def remote_policy(
    address: str,
    *,
    spec: Spec | None = None,
    remote: Remote | None = None,
    sample: bool = False,
    seed: int = 0,
    timeout_s: float = 60.0,
) -> RemotePolicy:
    """The policy that `shoal serve-policy` serves at an address: `remote_policy("grpc://HOST:PORT").act(obs)`.

    Args:
        address: grpc://HOST:PORT, or grpcs:// where the server has a certificate.
        spec: of the environment it shall act in, which is compared with the policy's; None: it is not.
        remote: certificates and the token that the server asks for.
        sample: actions drawn from the policy, instead of greedy ones.
        seed: of these draws.
        timeout_s: what any reply may take.

    Raises:
        ConfigError: nobody answers there, another token or protocol, or a policy of another specification.
    """
    if remote is not None:
        remote = object_of("remote", remote, Remote, "Remote(token_file=...)")
    check_seed(seed)
    sample = flag_of("sample", sample)
    timeout_s = number_of("timeout_s", timeout_s, 1e-3, 1e9)
    return RemotePolicy(
        string_of("address", address),
        remote or Remote(),
        spec,
        sample=sample,
        seed=seed,
        timeout_s=timeout_s,
    )


class _Session(NamedTuple):
    """A stream for a number of rows."""

    requests: queue.SimpleQueue[Any]
    replies: Any
    obs: Batch
    action: Batch


@all_worded({})
class RemotePolicy:
    """A policy on a server. One thread acts at a time; other clients have memories of their own."""

    def __init__(
        self,
        address: str,
        remote: Remote,
        spec: Spec | None,
        *,
        sample: bool,
        seed: int,
        timeout_s: float,
    ) -> None:
        """As `remote_policy`."""
        encrypted = address.startswith(ENCRYPTED)
        self._server = address.removeprefix(SCHEME).removeprefix(ENCRYPTED)
        split_port(self._server)
        self._sample, self._seed = sample, seed
        self._timeout_s = timeout_s
        self._channel, self._said = channel_to(
            self._server, remote, encrypted=encrypted
        )
        self._stub = service.PoliciesStub(self._channel)
        self._session: _Session | None = None
        self._closed = False
        try:
            self._about = self._describe()
            self.spec = read_spec(self._about.spec)
            """What the policy observes and does."""
            if spec is not None:
                _check_spec(self.spec, spec)
        except BaseException:
            self._channel.close()
            raise
        self.caller: tuple[str, ...] = tuple(self._about.caller)
        """What the caller must do himself, in sentences."""

    def __enter__(self) -> RemotePolicy:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self.close()

    def act(
        self, obs: Tree, *, action_mask: Tree = None, start: ArrayLike | None = None
    ) -> Tree:
        """The action for one observation, or actions [N] for a batch [N, ...], as the action space samples them.

        Args:
            obs: in the dtypes of `spec`, one or a batch of always as many; another number begins anew.
            action_mask: what `info["action_mask"]` says; for a batch, a list of one a row.
            start: bool or [N], where an episode begins; None: nowhere but at the first call and after `reset`.

        Raises:
            ValueError: an observation that the policy's environment would not show; nothing is remembered of it.
            EnvError: the server is gone, or this client is closed.
        """
        if self._closed:
            raise EnvError(
                f"{self.spec.env_id}: this client of {self._server} is closed; make another one by remote_policy"
            )
        check_alone(self.spec, obs)
        arrays = arrays_of(self.spec, obs)
        leaves = self.spec.observation.leaves
        alone = arrays[0].shape == leaves[0].shape
        if alone:
            arrays = [array[None] for array in arrays]
        count = len(arrays[0]) if arrays[0].ndim else 0
        for leaf, array in zip(leaves, arrays, strict=True):
            if array.shape != (count, *leaf.shape) or not count:
                raise ValueError(
                    f"{self.spec.env_id}: expected an observation{leaf.name} {leaf.shape} or [N, ...], got "
                    f"{array.shape}"
                )
        session = self._of(count)
        for to, array in zip(session.obs.arrays, arrays, strict=True):
            to[...] = array
        step = wire.PolicyStep(obs=session.obs.block.tobytes())
        if start is not None:
            flags = np.asarray(start, np.bool_)
            if flags.shape not in ((), (count,)):
                raise ValueError(
                    f"{self.spec.env_id}: start is a bool, or [{count}] of them as there are {count} observations, "
                    f"got {flags.shape}"
                )
            flags = np.broadcast_to(flags, (count,))
            step.start = flags.tobytes()
        if action_mask is not None:
            given = [action_mask] if alone else action_mask
            reader = MaskReader(self.spec)
            step.mask = np.concatenate([reader.read(one, 1) for one in given]).tobytes()
        reply = self._ask(session, wire.PolicyRequest(act=step))
        if reply.WhichOneof("what") == "refused":
            raise ValueError(reply.refused)
        data: bytes = reply.action
        session.action.read(data, 0, len(data), "actions")
        copies = [array.copy() for array in session.action.arrays]
        action = self.spec.action.tree(copies)
        return select(action, 0) if alone else action

    def reset(self) -> None:
        """The next observation begins an episode."""
        self._end()

    def close(self) -> None:
        """Ends the session, and the connection."""
        self._end()
        self._closed = True
        self._channel.close()

    def _of(self, count: int) -> _Session:
        """The session for so many rows; another one where their number has changed."""
        session = self._session
        if session is not None and len(session.obs.arrays[0]) == count:
            return session
        self._end()
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        replies = self._stub.Session(_until_none(requests), metadata=self._said)
        batches = Batch(self.spec.observation, count), Batch(self.spec.action, count)
        self._session = made = _Session(requests, replies, *batches)
        asked = wire.PolicyOpen(
            protocol=PROTOCOL,
            rows=count,
            spec_sha256=self._about.spec_sha256,
            sample=self._sample,
            seed=self._seed,
        )
        self._ask(made, wire.PolicyRequest(open=asked))
        return made

    def _ask(self, session: _Session, request: Any) -> Any:
        """The reply to a request.

        Raises:
            ConfigError: the server refuses the session.
            EnvError: it is gone, or silent.
        """
        session.requests.put(request)
        late = threading.Timer(self._timeout_s, session.replies.cancel)
        late.daemon = True
        late.start()
        try:
            return next(session.replies)
        except grpc.RpcError as error:
            self._end()
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                raise ConfigError(f"{self._server}: {detail(error)}") from error
            raise EnvError(
                f"the policy's server at {self._server} has ended the session ({detail(error)}); the next call of act "
                "begins another one, and episodes with it"
            ) from error
        finally:
            late.cancel()

    def _describe(self) -> Any:
        try:
            about = self._stub.Describe(
                wire.PolicyQuestion(protocol=PROTOCOL),
                timeout=self._timeout_s,
                metadata=self._said,
            )
        except grpc.RpcError as error:
            raise ConfigError(
                f"no policy answers at {self._server} ({detail(error)}); start one there: shoal serve-policy RUN "
                f"--listen {self._server}"
            ) from error
        if about.protocol != PROTOCOL:
            raise ConfigError(
                f"the server at {self._server} speaks protocol {about.protocol}, this client {PROTOCOL}; install the "
                "same shoal on both sides"
            )
        return about

    def _end(self) -> None:
        """Ends the stream, and what the server remembers with it."""
        session, self._session = self._session, None
        if session is not None:
            session.requests.put(None)
            session.replies.cancel()


def _check_spec(theirs: Spec, ours: Spec) -> None:
    """ConfigError where a policy was trained for other observations or actions."""
    if sha256_of(theirs) == sha256_of(ours):
        return
    said: list[str] = []
    for what in ("observation", "action"):
        space = f"{what}_space"
        found = difference(getattr(ours, space), getattr(theirs, space), bounds=True)
        if found:
            said.append(f"{what}s: {found}")
    raise ConfigError(
        f"the policy was trained for {theirs.env_id}, whose specification is another one than {ours.env_id}'s: "
        f"{'; '.join(said) or 'the order or bounds of their arrays differ'}"
    )


def _until_none(requests: queue.SimpleQueue[Any]) -> Iterator[Any]:
    while (request := requests.get()) is not None:
        yield request
