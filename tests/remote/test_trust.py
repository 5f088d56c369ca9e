"""Who may connect to a server: certificates, tokens, and what is refused."""

from __future__ import annotations

import socket
import ssl
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trustme

import shoal
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make, on_servers
from shoal.remote.server import Server
from shoal.remote.settings import Guard, Remote, Terms
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "a token that is long enough"


class Files:
    """A certificate authority, what it signed, and a token, as files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.ca)
        self.cert, self.key = self._signed(folder, "server", authority.issue_cert("127.0.0.1"))
        self.own_cert, self.own_key = self._signed(folder, "client", authority.issue_cert("learner.example"))
        past = datetime.now(UTC) - timedelta(days=1)
        expired = authority.issue_cert("127.0.0.1", not_before=past - timedelta(days=1), not_after=past)
        self.old_cert, self.old_key = self._signed(folder, "old", expired)
        late = authority.issue_cert("learner.example", not_before=past - timedelta(days=1), not_after=past)
        self.late_cert, self.late_key = self._signed(folder, "late", late)
        self.token_file = str(folder / "token")
        (folder / "token").write_text(f"{TOKEN}\n", encoding="ascii")
        self.other_token = str(folder / "other")
        (folder / "other").write_text("another one, as long as that", encoding="ascii")

    @staticmethod
    def _signed(folder: Path, name: str, cert: Any) -> tuple[str, str]:
        paths = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
        cert.cert_chain_pems[0].write_to_path(paths[0])
        cert.private_key_pem.write_to_path(paths[1])
        return paths


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("trust"))


def serving(guard: Guard, listen: str = "127.0.0.1:0") -> Server:
    return Server(partial(make, "CartPole-v1"), num_envs=8, listen=listen, guard=guard)


def rows_of(name: str, **remote: Any) -> Any:
    return on_servers(name, 2, None, (), Preprocessing(), terms=Terms(Remote(**remote), 5.0))


def test_training_over_an_encrypted_connection(files: Files, run_dir: Path) -> None:
    """With a token, and with certificates of both sides."""
    settings: dict[str, Any] = {
        "algo": "ppo", "total_timesteps": 512, "num_envs": 4, "num_steps": 32, "final_episodes": 0, "preset": "none",
        "panel": "none", "run_dir": run_dir, "network": {"hidden": (8,)},
    }  # fmt: skip
    with serving(Guard(files.cert, files.key, token_file=files.token_file)) as server:
        assert server.name.startswith("grpcs://127.0.0.1:")
        run = shoal.train(server.name, remote={"ca": files.ca, "token_file": files.token_file}, **settings)
        assert run.steps == 512
        kept = b"".join(path.read_bytes() for path in run.path.rglob("*") if path.is_file())
        assert files.token_file.encode() in kept
        assert TOKEN.encode() not in kept
    with serving(Guard(files.cert, files.key, client_ca=files.ca)) as server:
        given = {"ca": files.ca, "cert": files.own_cert, "key": files.own_key}
        with closing(rows_of(server.name, **given)) as rows:
            rows.reset(1)
            assert rows.recv().valid.all()
        for none in ({}, {"cert": files.late_cert, "key": files.late_key}):
            with pytest.raises(ConfigError, match="no server of environments answers"):
                rows_of(server.name, ca=files.ca, **none)
        assert not reaches_frames(server, files, None)
        assert not reaches_frames(server, files, (files.late_cert, files.late_key))
        assert reaches_frames(server, files, (files.own_cert, files.own_key))


def reaches_frames(server: Server, files: Files, pair: tuple[str, str] | None) -> bool:
    """Whether the TLS port of the second plane waits for what a client with this certificate says."""
    context = ssl.create_default_context(cafile=files.ca)
    if pair is not None:
        context.load_cert_chain(*pair)
    assert server.service.plane is not None
    there = socket.create_connection(("127.0.0.1", server.service.plane.tls_port), 0.2)
    try:
        with there, context.wrap_socket(there, server_hostname="127.0.0.1") as connected:
            return connected.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def test_a_wrong_token_or_none_is_refused(files: Files) -> None:
    """Over an open wire, which only this machine can reach, too."""
    with serving(Guard(token_file=files.token_file)) as server:
        rows_of(server.name, token_file=files.token_file).close()
        for wrong in ({}, {"token_file": files.other_token}):
            with pytest.raises(ConfigError, match=r"asks for a token, and it is not this one; give remote\.token_file"):
                rows_of(server.name, **wrong)
    with pytest.raises(ConfigError, match="for everybody on the way to read"):
        rows_of("grpc://192.0.2.1:50051", token_file=files.token_file)


def test_a_certificate_that_nobody_knows_or_that_expired(files: Files) -> None:
    """And a client that does not ask for one."""
    with serving(Guard(files.cert, files.key)) as server:
        with pytest.raises(ConfigError, match=r"which remote\.ca has signed and which has not expired"):
            rows_of(server.name)
        with pytest.raises(ConfigError, match=f"or write grpcs://{server.address}"):
            rows_of(f"grpc://{server.address}")
    with (
        serving(Guard(files.old_cert, files.old_key)) as server,
        pytest.raises(ConfigError, match="which has not expired"),
    ):
        rows_of(server.name, ca=files.ca)


def test_others_are_asked_who_they_are(files: Files) -> None:
    """An address that other machines reach needs a certificate and a way to know clients."""
    pair = (files.cert, files.key)
    for too_little in (Guard(), Guard(token_file=files.token_file), Guard(*pair)):
        with pytest.raises(ConfigError, match="give a certificate"):
            serving(too_little, "0.0.0.0:0")
    for enough in (Guard(*pair, token_file=files.token_file), Guard(*pair, client_ca=files.ca)):
        serving(enough, "0.0.0.0:0").stop(0.0)


def test_files_that_do_not_fit(files: Files, tmp_path: Path) -> None:
    """Each is named."""
    (tmp_path / "short").write_text("short", encoding="ascii")
    (tmp_path / "empty").write_text("", encoding="ascii")
    with pytest.raises(ConfigError, match="must hold 16 or more"):
        serving(Guard(token_file=str(tmp_path / "short")))
    with pytest.raises(ConfigError, match="is empty"):
        serving(Guard(token_file=str(tmp_path / "empty")))
    with pytest.raises(ConfigError, match="cannot be read"):
        serving(Guard(str(tmp_path / "none"), str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="cert and key belong together"):
        Guard(cert=files.cert)
    with pytest.raises(ConfigError, match="give cert and key too"):
        Guard(client_ca=files.ca)
    with pytest.raises(ConfigError, match=r"remote\.cert and remote\.key belong together"):
        Remote(cert=files.cert)
    with pytest.raises(ConfigError, match="write grpcs://127"):
        rows_of("grpc://127.0.0.1:1", ca=files.ca)
    with pytest.raises(ConfigError, match=r"remote\.ca.*on no server"):
        shoal.train("CartPole-v1", remote={"ca": files.ca})
