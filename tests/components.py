"""Optional components: a test that needs one which is missing is skipped and says so; in CI (CORRAL_TEST_ALL=1) it fails instead."""

import os
import shutil
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """End this test: ``what`` is not on this machine, and how to get it."""
    if os.environ.get("CORRAL_TEST_ALL"):
        pytest.fail(f"missing, and nothing may be skipped here: {what}")
    pytest.skip(f"missing: {what}")


def program(name: str, package: str) -> str:
    """The path of a program, or the test ends."""
    return shutil.which(name) or missing(f"{name} (apt-get install {package})")
