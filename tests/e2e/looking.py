"""What is wrong with a page, as a browser, a person with a phone and a screen reader would find out."""

from pathlib import Path
from typing import Literal

from playwright.sync_api import ConsoleMessage, Page, Request, Response

from tests.e2e.furnishing import PASSWORD

_AXE = (Path(__file__).resolve().parents[2] / "node_modules" / "axe-core" / "axe.min.js").read_text()
WIDTHS = (1360, 390)
# The WCAG levels that law and contracts ask for; and axe's own advice, where the markup is ours and not Django's.
_WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# Evaluated through the debugger, which the page's CSP does not concern; it changes nothing that the page may load.
_RUN_AXE = """
async (only) => {
    const options = only.rules ? { runOnly: only.rules } : { runOnly: only.tags };
    const result = await axe.run(document, { ...options, resultTypes: ["violations"], preload: false });
    return result.violations
        .filter((violation) => ["serious", "critical"].includes(violation.impact))
        .flatMap((violation) => violation.nodes.map((node) =>
            `${violation.id} (${violation.impact}): ${node.target.join(" ")}: `
            + `${(node.any.concat(node.all, node.none)[0] || {}).message || violation.help}`));
}
"""
# Our pages say their theme in an attribute; Django's admin follows the browser without one.
_HAS_THEME = """
(scheme) => matchMedia(`(prefers-color-scheme: ${scheme})`).matches
    && [undefined, scheme].includes(document.documentElement.dataset.bsTheme)
"""
# A color on its way from one theme to the other is neither. Ours change at once with reduced motion; the admin's take
# their time, one after the other where one inherits from another.
_SETTLE = """
async () => {
    const running = () => document.getAnimations().filter((animation) => animation instanceof CSSTransition);
    do {
        await Promise.allSettled(running().map((transition) => transition.finished));
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    } while (running().length);
}
"""
# Whatever reaches over the right edge and is not inside something that scrolls by itself.
_OVERFLOWING = """
() => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    const over = [...document.querySelectorAll("body *")].filter((element) =>
        element.getBoundingClientRect().right > width + 1);
    return over.slice(0, 5).map((element) => element.outerHTML.slice(0, 120));
}
"""
# On a laptop every column of a table of figures is in sight: the last one is money.
_SCROLLING = """
() => [...document.querySelectorAll(".table-responsive:has(> .table-figures)")]
    .filter((box) => box.scrollWidth > box.clientWidth)
    .map((box) => `${box.scrollWidth} pixels in ${box.clientWidth}: ${box.innerText.slice(0, 60)}`)
"""
# On a phone no table of money scrolls sideways, unless it says so: nobody looks for what is cut off.
_CUT_OFF = """
() => [...document.querySelectorAll(".table-responsive:has(> .table:not(.table-figures, .table-roomy))")]
    .filter((box) => box.scrollWidth > box.clientWidth)
    .map((box) => `${box.scrollWidth} pixels in ${box.clientWidth}: ${box.innerText.slice(0, 60)}`)
"""


class Watched:
    """A page whose complaints are kept from the moment it is watched."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._problems: list[str] = []
        self._expected_status = 200
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error("
            "`CSP refused ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));"
        )
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self._problems.append(f"script failed: {error}"))
        page.on("requestfailed", self._note_failed_request)
        page.on("response", self._note_response)

    def open(self, path: str, *, status: int = 200) -> None:
        """Load a page that must answer with this status."""
        self._expected_status = status
        answer = self.page.goto(path)
        assert answer is not None
        assert answer.status == status, f"{path} answered {answer.status}"
        self._expected_status = 200

    def problems(self) -> list[str]:
        """What the browser has complained about since the last time it was asked."""
        found, self._problems = self._problems, []
        return found

    def look(self, *, width: int, scheme: Literal["light", "dark"]) -> list[str]:
        """What is wrong with the open page at this width and in these colors: overflow and axe."""
        page = self.page
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(_HAS_THEME, arg=scheme)
        page.evaluate(_SETTLE)
        found = [f"sticks out: {element}" for element in page.evaluate(_OVERFLOWING)]
        if width == WIDTHS[0]:
            found += [f"is cut off: {table}" for table in page.evaluate(_SCROLLING)]
        elif "/billing/" in page.url:
            found += [f"is cut off: {table}" for table in page.evaluate(_CUT_OFF)]
        if page.evaluate("typeof axe === 'undefined'"):
            page.evaluate(_AXE)
        # In the dark the elements are the same, and only their colors are others.
        tags = _WCAG if "/admin/" in page.url else [*_WCAG, "best-practice"]
        only = {"tags": tags} if scheme == "light" else {"rules": ["color-contrast"]}
        found += page.evaluate(_RUN_AXE, only)
        return [f"{width} {scheme}: {problem}" for problem in found]

    def _note_console(self, message: ConsoleMessage) -> None:
        expected = self._expected_status != 200 and f"status of {self._expected_status}" in message.text
        if message.type in {"error", "warning"} and not expected:
            self._problems.append(f"console {message.type}: {message.text}")

    def _note_failed_request(self, request: Request) -> None:
        # A page that polls and is left takes its last request with it.
        if not (request.failure == "net::ERR_ABORTED" and request.resource_type in {"xhr", "fetch"}):
            self._problems.append(f"request failed: {request.url} {request.failure}")

    def _note_response(self, response: Response) -> None:
        if response.status >= 400 and not response.request.is_navigation_request():
            self._problems.append(f"answered {response.status}: {response.url}")


def sign_in(page: Page, email: str) -> None:
    """Through the sign-in page, as people do."""
    page.goto("/accounts/login/")
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("main").get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/accounts/login/" not in url)
