"""The adapter over the real key store."""

from pathlib import Path

import pytest

from deployments.config import Settings
from deployments.errors import Unauthenticated
from deployments.ingress.auth import ThreadedKeys
from deployments.stores.keys import open_keys


async def test_threaded_keys_ask_the_store_and_then_its_memory(tmp_path: Path) -> None:
    store = open_keys(Settings(state_dir=tmp_path))
    key, bearer = store.create("test")
    keys = ThreadedKeys(store)
    assert store.recall(bearer) is None
    assert (await keys.verify(bearer)).id == key.id
    assert store.recall(bearer) == key
    assert (await keys.verify(bearer)).id == key.id


async def test_threaded_keys_refuse_a_revoked_key(tmp_path: Path) -> None:
    store = open_keys(Settings(state_dir=tmp_path))
    key, bearer = store.create("test")
    keys = ThreadedKeys(store)
    store.revoke(key.id)
    for wrong in (bearer, f"{bearer[:-1]}_", "nonsense"):
        with pytest.raises(Unauthenticated):
            await keys.verify(wrong)
