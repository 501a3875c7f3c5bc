"""A page in a real browser, held against the rules of axe-core."""

from pathlib import Path

import pytest

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
UNFOLD = "document.querySelectorAll('details').forEach(one => { one.open = true })"


def violations(page) -> list[str]:
    """What breaks a rule on a page of playwright as it is shown: the rule, what it asks for, and where."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {"runOnly": RULES, "resultTypes": ["violations"]}
    found = axe.run(page, options=options).response["violations"]
    return [f"{rule['id']}: {rule['help']}: {node['target']}" for rule in found for node in rule["nodes"]]


def violations_of_file(path: Path, chromium: str) -> list[str]:
    """`violations` of an HTML file with all folds open, on a wide and a narrow screen, light and dark."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = []
    with playwright.sync_playwright() as driver:
        tab = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page()
        tab.goto(path.as_uri())
        tab.evaluate(UNFOLD)
        for width in (1280, 390):
            tab.set_viewport_size({"width": width, "height": 800})
            for scheme in ("light", "dark"):
                tab.emulate_media(color_scheme=scheme)
                found += [f"{width} px, {scheme}: {one}" for one in violations(tab)]
    return found
