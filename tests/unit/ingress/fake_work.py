"""What all of the fake's work has in common: it fails, takes its time, and is counted."""


class FakeWork:
    """Fails with `error`, at once or after some pieces, each of which comes `delay_s` late."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.error_after = 0
        self.delay_s = 0.0
        self.num_running = 0

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error
