"""What `up` says when the cluster answers: where the key is, and a line to try it with."""

import json

import httpx
from rich.console import Console

from cluster.state import StateFolder


def welcome(console: Console, url: str, state: StateFolder) -> None:
    """Print the addresses, where the key is, and one line that asks the first model."""
    console.print(f"[bold green]ready[/] on {url}", highlight=False)
    if not state.admin_key.exists():
        return
    console.print(f"  admin key   {state.admin_key}", highlight=False, soft_wrap=True)
    model = _first_model(url, state)
    if model is None:
        return
    console.print(f"  API pages   {url}/docs", highlight=False, soft_wrap=True)
    console.print("  try it:\n", highlight=False)
    # Printed without markup or wrapping, so that it can be pasted as it is.
    console.print(curl_line(url, state, model), highlight=False, markup=False, soft_wrap=True)
    console.print()


def curl_line(url: str, state: StateFolder, model: str) -> str:
    """Return a shell line that asks a model; the key stays in its file."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 32,
    }
    return (
        f'curl {url}/v1/chat/completions -H "Authorization: Bearer $(cat {state.admin_key})" '
        f"-d '{json.dumps(body)}'"
    )


def _first_model(url: str, state: StateFolder) -> str | None:
    key = state.admin_key.read_text(encoding="utf-8").strip()
    headers = {"authorization": f"Bearer {key}"}
    try:
        answer = httpx.get(f"{url}/v1/models", headers=headers, timeout=10, trust_env=False)
        models = answer.json()["data"] if answer.is_success else []
    except (httpx.TransportError, ValueError, KeyError, TypeError):
        return None
    return str(models[0]["id"]) if models else None
