// The secret leaves the page when the reader does: a browser may keep the page in memory for Back and Forward.
(() => {
  const page = document.getElementById("secret-page");
  window.addEventListener("pagehide", () => {
    for (const element of page.querySelectorAll("[data-secret]")) element.textContent = "Shown once, and gone.";
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) window.location.replace(page.dataset.gone);
  });
})();
