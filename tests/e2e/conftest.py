"""Chromium, and a whole Tollgate for it to look at."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

from tests.e2e.furnishing import Furniture, furnish
from tests.instance import Instance

# A page that takes this long on a busy machine is slow, not broken.
_PATIENCE_MS = 30_000
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session", autouse=True)
def chromium_program() -> str:
    """The machine's Chromium. Where there is none the tests of this folder are skipped; E2E=require fails them."""
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program:
        return program
    reason = f"no Chromium on this machine: none of {', '.join(_NAMES)} is on the PATH"
    if os.environ.get("E2E") == "require":
        pytest.fail(f"{reason}, and E2E=require asks for one", pytrace=False)
    pytest.skip(reason)


# pytest-playwright keeps its browser for the whole session, and with it a running event loop in the worker's thread,
# in which Django refuses to touch the database: the worker's later tests would fail. So it ends with this folder.


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        expect.set_options(timeout=_PATIENCE_MS)
        yield running


@pytest.fixture(scope="package")
def browser(playwright: Playwright, chromium_program: str) -> Iterator[Browser]:
    # Chromium's own sandbox does not work for root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    launched = playwright.chromium.launch(executable_path=chromium_program, args=arguments)
    yield launched
    launched.close()


@pytest.fixture(scope="package")
def browser_context_args(shared_instance: Instance) -> dict[str, Any]:
    return {
        "base_url": shared_instance.url,
        "viewport": {"width": 1360, "height": 900},
        "color_scheme": "light",
    }


@pytest.fixture(scope="session")
def furniture(shared_instance: Instance) -> Furniture:
    """People with and without data in the shared instance, who can be signed in."""
    return furnish(shared_instance)
