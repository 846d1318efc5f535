"""`ragserve up`: start everything and stay in the foreground, or `--detach`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.bootstrap import prepare_database
from cluster.certificates import KeyPair, trial_pair
from cluster.dedicated import behind_our_edge, dedicated
from cluster.detach import run_detached
from cluster.edge import EdgeTls
from cluster.errors import OperatorError
from cluster.ports import LOOPBACK, check_free
from cluster.run_record import read_record
from cluster.serve_config import load_config
from cluster.serve_mode import ServeMode
from cluster.state import StateFolder, exclusive, supervisor_pid
from cluster.supervisor import Plan, Supervisor
from cluster.view import View
from cluster.welcome import welcome
from deployments.config import Settings


def up(
    config: Annotated[Path, typer.Argument(help="Serve configuration to run.")] = Path(
        "serve_config.yaml"
    ),
    host: Annotated[
        str, typer.Option(envvar="RAGSERVE_HOST", help="Address to listen on; 0.0.0.0 opens it.")
    ] = LOOPBACK,
    serve_mode: Annotated[
        ServeMode, typer.Option(envvar="RAGSERVE_SERVE_MODE", help="How Serve moves requests.")
    ] = ServeMode.DIRECT,
    tls: Annotated[
        bool, typer.Option("--tls", envvar="RAGSERVE_TLS", help="Serve HTTPS, too, on port 8443.")
    ] = False,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            envvar="RAGSERVE_TLS_CERT", help="Chain in PEM; without it one is made for a trial."
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar="RAGSERVE_TLS_KEY", help="Its private key, in PEM.")
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="RAGSERVE_TLS_CLIENT_CA", help="Who signs the certificates clients must show."
        ),
    ] = None,
    tls_redirect: Annotated[
        bool,
        typer.Option("--tls-redirect", envvar="RAGSERVE_TLS_REDIRECT", help="HTTP leads to HTTPS."),
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once it is ready; `down` ends it.")
    ] = False,
) -> None:
    """Start the cluster and stay in the foreground; Ctrl-C ends everything it started.

    Examples:
      ragserve up
      ragserve up --detach
      RAGSERVE_HTTP_PORT=9090 ragserve up configs/gpu.yaml --host 0.0.0.0
      ragserve up --tls
      ragserve up --tls --tls-cert site.crt --tls-key site.key --tls-redirect --host 0.0.0.0
    """
    settings = Settings()
    state = StateFolder(settings.state_path)
    path = _default_beside_package(config)
    console = Console(stderr=True)
    state.prepare()
    _refuse_if_up(state)
    check_free(host, settings.http_port)
    if settings.grpc_port:
        check_free(host, settings.grpc_port, "RAGSERVE_GRPC_PORT")
    edge_tls = None
    if tls:
        check_free(host, settings.https_port, "RAGSERVE_HTTPS_PORT")
        if settings.grpc_port:
            check_free(host, settings.grpc_tls_port, "RAGSERVE_GRPC_TLS_PORT")
        pair = _pair(tls_cert, tls_key) or trial_pair(state.path / "tls", host)
        pair.pem()  # what is wrong with it is told before anything starts
        ports = {"port": settings.https_port, "grpc_port": settings.grpc_tls_port}
        edge_tls = EdgeTls(pair, client_ca=tls_client_ca, is_redirected=tls_redirect, **ports)
    elif tls_cert or tls_key or tls_client_ca or tls_redirect:
        raise OperatorError("these options are for HTTPS: add --tls")
    if detach:
        options = ["--host", host, "--serve-mode", serve_mode.value]
        url = run_detached(state, [str(path), *options, *_tls_options(edge_tls)])
        welcome(console, url, state)
        return
    config_ = load_config(path)
    others = dedicated(config_, settings)
    config_ = behind_our_edge(config_, settings)
    port, grpc_port = settings.http_port, settings.grpc_port
    plan = Plan(state, path, config_, host, port, serve_mode, edge_tls, grpc_port)
    with exclusive(state) as is_ours:
        if not is_ours:
            _refuse_if_up(state)
        _in_foreground(plan, [settings, *others], console)


def _pair(certificate: Path | None, key: Path | None) -> KeyPair | None:
    if (certificate is None) != (key is None):
        raise OperatorError("a certificate and its key come together: --tls-cert and --tls-key")
    if certificate is None or key is None:
        return None
    return KeyPair(certificate.resolve(), key.resolve())


def _tls_options(tls: EdgeTls | None) -> list[str]:
    if tls is None:
        return []
    pair = ["--tls-cert", str(tls.pair.certificate), "--tls-key", str(tls.pair.key)]
    ca = ["--tls-client-ca", str(tls.client_ca.resolve())] if tls.client_ca else []
    return ["--tls", *pair, *ca, *(["--tls-redirect"] if tls.is_redirected else [])]


def _default_beside_package(config: Path) -> Path:
    """Return the file meant: the default one is also found beside the installed packages."""
    if not config.exists() and config == Path("serve_config.yaml"):
        return Path(__file__).resolve().parent.parent / config
    return config.resolve()


def _refuse_if_up(state: StateFolder) -> None:
    if supervisor_pid(state) is None:
        return
    record = read_record(state)
    where = f" on {record.url}" if record else ""
    raise OperatorError(f"already up{where}: `ragserve status` shows it, `ragserve down` ends it")


def _in_foreground(plan: Plan, installations: Sequence[Settings], console: Console) -> None:
    view = View(console)
    supervisor = Supervisor(plan, view)

    def prepare() -> None:
        for settings in installations:
            state = StateFolder(settings.state_path)
            view.step(f"preparing the database of {state.path}")
            state.prepare()
            if prepare_database(settings).key_status == "unusable":
                view.warn(f"the key in {state.admin_key} does not work with this database")

    supervisor.run(prepare, lambda: welcome(console, plan.url, plan.state))
    sys.stderr.flush()
