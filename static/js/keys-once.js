// One click, one key: the server refuses a second one, but its answer would replace the page that shows the secret.
(() => {
  for (const form of document.querySelectorAll("form[data-once]")) {
    let sent = false;
    form.addEventListener("submit", (event) => {
      if (sent) {
        event.preventDefault();
        return;
      }
      sent = true;
      form.querySelector('[type="submit"]').classList.add("btn-loading");
    });
    // A page that comes back from the cache of Back is fresh.
    window.addEventListener("pageshow", (event) => {
      if (!event.persisted) return;
      sent = false;
      form.querySelector('[type="submit"]').classList.remove("btn-loading");
    });
  }
})();
