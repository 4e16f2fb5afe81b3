// Makes tabs of the snippets, with the arrow keys as WAI-ARIA describes them. Without a script all are shown.
(() => {
  for (const snippets of document.querySelectorAll("[data-snippets]")) {
    const tabs = [...snippets.querySelectorAll('[role="tab"]')];
    const panelOf = (tab) => document.getElementById(tab.getAttribute("aria-controls"));

    const select = (chosen) => {
      for (const tab of tabs) {
        const isChosen = tab === chosen;
        tab.classList.toggle("btn-primary", isChosen);
        tab.setAttribute("aria-selected", String(isChosen));
        tab.tabIndex = isChosen ? 0 : -1;
        panelOf(tab).hidden = !isChosen;
      }
    };

    tabs.forEach((tab, index) => {
      tab.addEventListener("click", () => select(tab));
      tab.addEventListener("keydown", (event) => {
        const next = {
          ArrowRight: tabs[(index + 1) % tabs.length],
          ArrowLeft: tabs[(index + tabs.length - 1) % tabs.length],
          Home: tabs[0],
          End: tabs[tabs.length - 1],
        }[event.key];
        if (!next) return;
        event.preventDefault();
        select(next);
        next.focus();
      });
    });
    select(tabs[0]);
  }
})();
