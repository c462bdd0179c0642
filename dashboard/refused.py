"""What the gateway refuses, in the reader's language: a sentence for what it means; its own words, which are English, are the detail."""

from collections.abc import Mapping
from typing import Any

from dashboard.gateway import NAMELESS, GatewayError
from dashboard.i18n import t
from dashboard.markup import plain, said


def told(error: GatewayError) -> str:
    """Markdown: the sentence, and the gateway's words below it."""
    return f"{sentence(error)}  \n:small[:gray[{said(error.message)}]]"


def broken(row: Mapping[str, Any]) -> str:
    """Markdown: why a message's answer failed."""
    why = plain(row["error"] or "")
    return t("The answer broke off: {why}", why=why) if row["content"] else t("There is no answer: {why}", why=why)


def sentence(error: GatewayError) -> str:
    """By the code that the gateway gives (docs/errors.md); without one the words are a host's."""
    if not error.status:
        return t("The gateway does not answer.")
    if error.keeps_nothing:
        return t("The gateway has no database: it keeps nothing.")
    return _sentences().get(error.code) or t("A host refuses.")


def _sentences() -> dict[str, str]:
    return {
        NAMELESS: t("Open this app at the address of the sign-on before it: only there you are known."),
        "internal": t("The gateway has failed."),
        "bad_request": t("The gateway does not take this."),
        "forbidden": t("The gateway does not let this app in."),
        "unauthorized": t("The gateway wants a valid key."),
        "not_allowed": t("The app's key is not good for this."),
        "too_large": t("This is more than the gateway takes at once."),
        "bodies_full": t("The gateway holds as much as it may just now."),
        "model_not_found": t("No host has the model."),
        "not_found": t("It is not there, or not any more."),
        "gone": t("The answer was too large to be kept."),
        "no_host": t("No host can take it now."),
        "conflict": t("This cannot be done while something else is under way."),
        "store_unavailable": t("The gateway's database cannot be reached now."),
        "store_newer": t("The gateway's database was made by a newer version."),
        "store_slow": t("The database takes too long: choose a shorter time."),
        "queue_full": t("Too many wait already."),
        "deadline_unmet": t("It would take longer than one may wait."),
        "deadline": t("It took longer than one may wait."),
        "shutting_down": t("The gateway is about to stop."),
        "loop": t("The gateway is one of its own hosts."),
        "hosts_failed": t("Every host that was tried failed."),
        "cancelled": t("It was stopped."),
        "not_http": t("The gateway does not take this."),
        "head_too_large": t("This is more than the gateway takes at once."),
        "too_slow": t("It came too slowly."),
        "too_many_connections": t("Too many are connected to the gateway."),
        "rate_limit_exceeded": t("The app's key may ask no more just now."),
        "insufficient_quota": t("The app's key has used up its tokens."),
    }
