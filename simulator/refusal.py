"""A request that the host answers with an error."""


class Refusal(Exception):
    """`status` and `message` as Ollama gives them; `early` says that its handler has not run: /v1 frames it otherwise."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.early = False


BUSY = "server busy, please try again.  maximum pending requests exceeded"
RUNNER_DIED = "an error was encountered while running the model: unexpected EOF"
LOAD_FAILED = "llama-server process has terminated: signal: killed"
