"""Where failures end: what a page, or a part of it that runs by itself, cannot do is told in the reader's language. Streamlit's own box speaks English only, and
offers no way on."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import ParamSpec

import streamlit as st

from dashboard import refused
from dashboard.gateway import GatewayError
from dashboard.i18n import t

LOG = logging.getLogger("dashboard")
_BROKEN = "_broken_parts"

P = ParamSpec("P")


@contextlib.contextmanager
def edge(cannot: Callable[[GatewayError], None], failed: Callable[[], None]) -> Iterator[None]:
    """``cannot`` tells what the gateway refuses, ``failed`` that it is a fault of ours, of which the log has the details."""
    try:
        yield
    except GatewayError as error:
        cannot(error)
    except Exception:  # the last edge of a page and of its parts
        LOG.exception("a page failed")
        failed()


def fragment(every: float | str | None = None) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """``st.fragment`` with such an edge: a part of a page that runs ``every`` so many seconds. What has failed is not run again until the page is, or
    somebody wants it: at 20 times a second it would fill the log."""

    def made(body: Callable[P, None]) -> Callable[P, None]:
        name = f"{body.__module__}.{body.__qualname__}"

        @functools.wraps(body)
        def guarded(*args: P.args, **values: P.kwargs) -> None:
            broken: set[str] = st.session_state.setdefault(_BROKEN, set())
            if name not in broken:
                with edge(_cannot, functools.partial(broken.add, name)):
                    body(*args, **values)
            if name in broken:
                st.caption(f":material/error: {t('This part of the page has failed.')} {_fault()}")
                st.button(t("Try again"), key=f"again_{name}", on_click=broken.discard, args=(name,))

        run: Callable[P, None] = st.fragment(run_every=every)(guarded)
        return run

    return made


def begin() -> None:
    """A run of the whole page: each of its parts is tried."""
    st.session_state[_BROKEN] = set()


def page_failed() -> None:
    """Instead of a page."""
    st.header(t("This page has failed"))
    st.caption(_fault())
    st.button(t("Try again"))


def _cannot(error: GatewayError) -> None:
    st.warning(refused.told(error), icon=":material/cloud_off:")


def _fault() -> str:
    return t("That is a fault of the app's: its log says what happened.")
