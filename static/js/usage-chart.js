// Draws every [data-usage-chart]: a stacked bar chart of the JSON inside it. Its table says the same in numbers.
(() => {
  if (typeof Chart === "undefined") return;

  // A canvas cannot read CSS variables, so each theme has its own colors: neighbors differ in lightness too.
  const PALETTES = {
    light: ["#0f766e", "#e08a00", "#3b6fd4", "#c2417c", "#6d5bd0", "#4d9a2a", "#0891b2", "#b4532a"],
    dark: ["#2fb3a5", "#f0b445", "#7ba4f4", "#ec7fae", "#a596f5", "#8fd069", "#4cc9e6", "#e8946a"],
  };
  const NEUTRAL = { light: "#8a94a0", dark: "#7d8793" };
  const FIXED = { completed: 0, refused: 1, failed: 7, interrupted: 4 };
  const charts = new Map();

  function theme() {
    // The admin has a name of its own for it.
    const chosen = document.documentElement.dataset.bsTheme ?? document.documentElement.dataset.theme;
    if (chosen === "dark" || chosen === "light") return chosen;
    return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  }

  // Browsers resolve light-dark() and variables in a used property, not in a variable.
  function inks(box) {
    const probe = document.createElement("span");
    probe.className = "text-secondary";
    box.append(probe);
    const text = getComputedStyle(probe).color;
    probe.remove();
    return { text, grid: theme() === "dark" ? "rgba(255, 255, 255, 0.09)" : "rgba(20, 30, 40, 0.09)" };
  }

  function color(dataset, index) {
    const name = theme();
    if (dataset.ident === "other") return NEUTRAL[name];
    const place = FIXED[dataset.ident] ?? index;
    return PALETTES[name][place % PALETTES[name].length];
  }

  const counts = new Intl.NumberFormat("en-US");
  const shortCounts = new Intl.NumberFormat("en-US", { notation: "compact" });
  function written(value, unit, isShort) {
    if (unit !== "usd") return (isShort ? shortCounts : counts).format(value);
    const digits = value !== 0 && Math.abs(value) < 0.01 ? 6 : 2;
    const most = isShort ? digits : Math.max(digits, 4);
    return value.toLocaleString("en-US", {
      style: "currency", currency: "USD", minimumFractionDigits: Math.min(2, most), maximumFractionDigits: most,
    });
  }

  // A day reads 11-21, an hour 11-21 14:00, a month as it is; the tooltip has it in full.
  const shortened = (label) => (label.length > 7 ? label.slice(5) : label);

  function settings(figure) {
    const data = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    const { text, grid } = inks(figure);
    return {
      type: "bar",
      data: {
        labels: data.labels,
        datasets: data.datasets.map((dataset, index) => ({
          label: dataset.label,
          data: dataset.data,
          backgroundColor: color(dataset, index),
          maxBarThickness: 48,
          borderRadius: 2,
          stack: "all",
        })),
      },
      options: {
        responsive: true,
        maintainAspectRatio: false,
        animation: false,
        color: text,
        interaction: { mode: "index", intersect: false },
        plugins: {
          legend: { position: "bottom", align: "start", labels: { color: text, boxWidth: 12, boxHeight: 12, padding: 14 } },
          tooltip: {
            filter: (item) => item.raw !== 0,
            itemSort: (a, b) => b.raw - a.raw,
            callbacks: {
              title: (items) => (items.length ? `${items[0].label} UTC` : ""),
              label: (item) => `${item.dataset.label}: ${written(item.raw, data.unit, false)}`,
              footer: (items) => `Total: ${written(items.reduce((sum, item) => sum + item.raw, 0), data.unit, false)}`,
            },
          },
        },
        scales: {
          x: {
            stacked: true,
            grid: { display: false },
            border: { color: grid },
            ticks: { color: text, maxRotation: 0, autoSkipPadding: 12, callback(value) { return shortened(this.getLabelForValue(value)); } },
          },
          y: {
            stacked: true,
            beginAtZero: true,
            grid: { color: grid },
            border: { display: false },
            ticks: { color: text, maxTicksLimit: 6, callback: (value) => written(value, data.unit, true) },
          },
        },
      },
    };
  }

  function draw(figure) {
    charts.get(figure)?.destroy();
    charts.set(figure, new Chart(figure.querySelector("canvas"), settings(figure)));
  }

  function drawAll() {
    for (const figure of charts.keys()) {
      if (!figure.isConnected) { charts.get(figure).destroy(); charts.delete(figure); }
    }
    document.querySelectorAll("[data-usage-chart]").forEach(draw);
  }

  drawAll();
  document.addEventListener("htmx:afterSettle", drawAll);
  document.addEventListener("htmx:historyRestore", drawAll);
  new MutationObserver(drawAll).observe(document.documentElement, { attributeFilter: ["data-bs-theme", "data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
