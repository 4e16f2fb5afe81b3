// What every page of the console needs once htmx is there.
(() => {
  // The CSRF cookie is HttpOnly, so the token comes from the page.
  document.addEventListener("htmx:configRequest", (event) => {
    const token = document.querySelector('meta[name="csrf-token"]');
    if (token && event.detail.verb !== "get") event.detail.headers["X-CSRFToken"] = token.content;
  });

  // <button data-copy="#id"> copies the text of the element, or its value.
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = document.querySelector(button.dataset.copy);
    if (!source) return;
    const text = "value" in source ? source.value : source.textContent.trim();
    const label = button.querySelector("[data-copy-label]") || button;
    const before = label.textContent;
    label.textContent = (await copied(text, source)) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { label.textContent = before; }, 2000);
  });

  async function copied(text, source) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Plain http on another host than localhost has no clipboard: select it and use the old command.
      const range = document.createRange();
      range.selectNodeContents(source);
      const selection = window.getSelection();
      if ("select" in source) source.select();
      else { selection.removeAllRanges(); selection.addRange(range); }
      return document.execCommand("copy");
    }
  }

  // <button data-reveal="id"> shows and hides a password.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-reveal]");
    if (!button) return;
    const field = document.getElementById(button.dataset.reveal);
    const shown = field.type === "password";
    field.type = shown ? "text" : "password";
    button.setAttribute("aria-pressed", String(shown));
    button.textContent = shown ? "Hide" : "Show";
  });

  // A table that is wider than the screen can be scrolled by keyboard too.
  function openScrollersToKeys() {
    for (const box of document.querySelectorAll(".table-responsive, pre")) {
      if (box.scrollWidth <= box.clientWidth || box.hasAttribute("tabindex")) continue;
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      const heading = box.closest("section, .card")?.querySelector("h2, h3");
      box.setAttribute("aria-label", heading ? `${heading.textContent.trim()}, scrolls sideways` : "Scrolls sideways");
    }
  }
  openScrollersToKeys();
  document.addEventListener("htmx:afterSettle", openScrollersToKeys);
  window.addEventListener("resize", openScrollersToKeys);
})();
