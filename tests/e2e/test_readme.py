"""What the README tells its reader to run works, exactly as it stands there."""

from pathlib import Path

import pytest

from tests.e2e.readme import Block, blocks, failure_of, reader
from tests.stack import ROOT, Stack

LEAST_EXECUTED = 5
PAGE = """
Text.

<!-- not executed: it starts a server -->

```bash
ragserve up
```

```bash
echo a reader sees this
```

```bash
curl -s $RAGSERVE_URL/v1/models -H "authorization: Bearer $RAGSERVE_API_KEY"
ragserve models
```

```python
import os

print(os.environ["RAGSERVE_URL"])
```

```json
{"a": 1}
```
"""


@pytest.mark.timeout(600)
def test_readme_does_what_it_says(stack: Stack, tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    executed = [block for block in blocks(page) if block.is_executable]
    env = reader(stack, tmp_path)
    failures = {}
    for block in executed:
        failure = failure_of(block, env, tmp_path)
        if failure is not None:
            failures[f"README.md:{block.line}"] = failure
    print(f"\n{len(executed)} blocks executed")
    assert failures == {}
    assert len(executed) >= LEAST_EXECUTED


def test_blocks_that_call_a_server_are_executed_and_pass(stack: Stack, tmp_path: Path) -> None:
    found = blocks(PAGE)
    assert [block.language for block in found] == ["bash", "bash", "bash", "python", "json"]
    assert [block.is_skipped for block in found] == [True, False, False, False, False]
    executed = [block for block in found if block.is_executable]
    assert executed == found[2:4]
    env = reader(stack, tmp_path)
    assert [failure_of(block, env, tmp_path) for block in executed] == [None, None]


@pytest.mark.parametrize(
    ("language", "code", "reason"),
    [
        ("bash", "ragserve down", "starts or stops"),
        ("bash", "ragserve search hello --collection no-such-one\necho done", "exit code 1"),
        ("bash", "curl -s $RAGSERVE_URL/v1/models", "printed an error"),
        ("bash", "echo $NO_SUCH_VARIABLE", "exit code"),
        ("python", "1 / 0", "ZeroDivisionError"),
    ],
)
def test_block_that_fails_is_noticed(
    language: str, code: str, reason: str, stack: Stack, tmp_path: Path
) -> None:
    failure = failure_of(Block(language, code, 1), reader(stack, tmp_path), tmp_path)
    assert failure is not None
    assert reason in failure


def test_block_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 2"):
        blocks("text\n```bash\nls\n")
