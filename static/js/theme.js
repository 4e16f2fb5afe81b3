// Loaded in <head> before the first paint, so that no page flashes in the wrong colors.
(() => {
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      const stored = localStorage.getItem("theme");
      return stored === "light" || stored === "dark" ? stored : "auto";
    } catch {
      return "auto";
    }
  }

  function apply() {
    const theme = chosen();
    const next = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
    const changed = root.dataset.bsTheme !== next;
    root.dataset.bsTheme = next;
    root.classList.add("js");
    for (const button of document.querySelectorAll("[data-theme-choice]")) {
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === theme));
    }
    // Charts listen: they have drawn with the colors of the other theme.
    if (changed) document.dispatchEvent(new CustomEvent("themechange", { detail: next }));
  }

  apply();
  dark.addEventListener("change", apply);
  window.addEventListener("storage", apply);
  document.addEventListener("DOMContentLoaded", apply);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-theme-choice]");
    if (!button) return;
    try {
      localStorage.setItem("theme", button.dataset.themeChoice);
    } catch {
      // Private windows may refuse storage: the choice then lasts as long as the page.
    }
    apply();
  });
})();
