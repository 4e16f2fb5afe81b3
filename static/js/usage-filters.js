// The two dates of the usage page matter for custom dates only.
(() => {
  // A step back loads the page anew: date fields that a script moves in from another document break Chromium's CSP.
  if (typeof htmx !== "undefined") htmx.config.refreshOnHistoryMiss = true;

  const form = document.querySelector("[data-usage-filters]");
  if (!form) return;
  const range = form.elements.namedItem("range");
  const dates = form.querySelectorAll("[data-custom-range]");
  const show = () => dates.forEach((field) => { field.hidden = range.value !== "custom"; });
  range.addEventListener("change", show);
  show();
})();
