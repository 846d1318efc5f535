"""The HTTP client of the command line: one address, one key, one line per error."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import typer
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from cluster.errors import OperatorError
from cluster.ports import LOOPBACK
from cluster.state import StateFolder
from deployments.backoff import Backoff
from deployments.config import Settings

MAX_ATTEMPTS = 6
MAX_WAIT_S = 30.0
RETRY = Backoff(1.0, MAX_WAIT_S)
CODE_HEADER = "x-second-factor"
RETRIED = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
PARQUET = "application/vnd.apache.parquet"
# An answer may take long to come, a connection may not.
TIMEOUT = httpx.Timeout(600.0, connect=5.0)


class ClientSettings(BaseSettings):
    """Whom the command line talks to (`RAGSERVE_URL`, `RAGSERVE_API_KEY`)."""

    model_config = SettingsConfigDict(env_prefix="RAGSERVE_", frozen=True)

    url: str = ""
    api_key: SecretStr = SecretStr("")


class CallFailed(OperatorError):
    """The server answered with an error; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Client:
    """Calls one server."""

    url: str
    key: str = field(repr=False)

    @classmethod
    def from_environment(cls) -> "Client":
        """Return a client of `RAGSERVE_URL` with `RAGSERVE_API_KEY`, else of this host's cluster.

        Raises:
            OperatorError: there is no key.
        """
        given, settings = ClientSettings(), Settings()
        url = given.url or f"http://{LOOPBACK}:{settings.http_port}"
        key = given.api_key.get_secret_value() or _admin_key(StateFolder(settings.state_path))
        return cls(url.rstrip("/"), key)

    def call(
        self, method: str, path: str, body: object = None, *, parquet: bytes | None = None
    ) -> dict[str, Any]:
        """Return the JSON answer; a full or restarting server is asked again, a few times.

        The body is `body` as JSON, or a Parquet file.

        Raises:
            CallFailed: the server refused, or stayed unavailable.
            OperatorError: it cannot be reached.
        """
        headers = self._headers()
        if parquet is not None:
            headers["content-type"] = PARQUET
        response = self._sent(method, path, headers, body, parquet)
        if error_code(response) == "second_factor_required":
            headers[CODE_HEADER] = one_time_code(response)
            response = self._sent(method, path, headers, body, parquet)
        if not response.is_success:
            raise failure(response)
        try:
            return dict(response.json())
        except (ValueError, TypeError) as error:
            raise OperatorError(f"{self.url} does not answer like a ragserve server") from error

    def _sent(
        self, method: str, path: str, headers: dict[str, str], body: object, parquet: bytes | None
    ) -> httpx.Response:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            with self._translated():
                response = httpx.request(
                    method,
                    self.url + path,
                    json=body,
                    content=parquet,
                    headers=headers,
                    timeout=TIMEOUT,
                )
            if response.status_code not in RETRIED or attempt == MAX_ATTEMPTS:
                break
            time.sleep(wait_s(response, attempt))
        return response

    def stream(self, path: str, body: object) -> Iterator[dict[str, Any]]:
        """Yield the events of a streamed answer, up to and including its terminal one.

        Raises:
            CallFailed: the server refused.
            OperatorError: it cannot be reached, or the stream broke off.
        """
        headers = self._headers()
        with (
            self._translated(),
            httpx.stream(
                "POST", self.url + path, json=body, headers=headers, timeout=TIMEOUT
            ) as response,
        ):
            if not response.is_success:
                response.read()
                raise failure(response)
            for line in response.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    def download(self, path: str) -> Iterator[bytes]:
        """Yield the pieces of a file that the server sends.

        Raises:
            CallFailed: the server refused.
            OperatorError: it cannot be reached, or the file broke off.
        """
        with (
            self._translated(),
            httpx.stream(
                "POST", self.url + path, headers=self._headers(), timeout=TIMEOUT
            ) as response,
        ):
            if not response.is_success:
                response.read()
                raise failure(response)
            yield from response.iter_bytes()

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise OperatorError(f"nothing answers on {self.url}: is it up?") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise OperatorError(f"the call to {self.url} broke off: {reason}") from error


def one_time_code(response: httpx.Response) -> str:
    """Ask for the code that the server wants; raises CallFailed where nobody can answer."""
    given = os.environ.get("RAGSERVE_CODE", "")
    if given:
        return given
    if not sys.stdin.isatty():
        raise failure(response)
    return str(typer.prompt("one-time code", err=True)).strip()


def error_code(response: httpx.Response) -> str:
    """Return the code of the server's error object; empty where there is none."""
    try:
        return str(response.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def wait_s(response: httpx.Response, attempt: int) -> float:
    """Return how long to wait: what `Retry-After` says, else 1, 2, 4, ... seconds; at most 30."""
    try:
        asked = float(response.headers.get("retry-after", ""))
    except ValueError:
        asked = RETRY.longest_s(attempt)
    return min(max(asked, 0.0), MAX_WAIT_S)


def failure(response: httpx.Response) -> CallFailed:
    """Return the server's own message as an error, whatever shape its body has."""
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = response.reason_phrase or "no reason given"
    return CallFailed(f"{message} (HTTP {response.status_code})", response.status_code)


def _admin_key(state: StateFolder) -> str:
    try:
        return state.admin_key.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise OperatorError(
            f"no key: set RAGSERVE_API_KEY, or start a cluster, which writes {state.admin_key}"
        ) from error
