// The buy page: credit, fee and total while typing. The server computes them again, and asks again if they differ.
(() => {
  const form = document.getElementById("buy");
  const field = form?.elements.credit;
  if (!field) return;
  const rate = Math.round(Number(form.dataset.feeRate) * 10000);
  const least = Number(form.dataset.minimumCents);
  const most = Number(form.dataset.maximumCents);
  const outputs = Object.fromEntries(["credit", "fee", "total"].map((name) => [name, document.getElementById(`buy-${name}`)]));
  const hint = document.getElementById("buy-hint");
  const problem = document.getElementById("buy-problem");
  const usd = (cents) => (cents / 100).toLocaleString("en-US", { style: "currency", currency: "USD" });

  // Cents, or NaN: the same forms of an amount that the server reads.
  function centsOf(text) {
    const plain = text.trim().replace(/^\$/, "").trim();
    const joined = /^\d{1,3}(,\d{3})+(\.\d*)?$/.test(plain) ? plain.replaceAll(",", "") : plain;
    const match = /^(\d{1,9})(?:\.(\d{0,2}))?$/.exec(joined);
    return match ? Number(match[1]) * 100 + Number((match[2] || "").padEnd(2, "0")) : NaN;
  }

  function problemOf(text, cents) {
    if (text.trim() === "") return "";
    if (Number.isNaN(cents)) return "Give an amount in USD, with a point before the cents, like 20 or 12.50.";
    if (cents < least || cents > most) return `Choose an amount from ${usd(least)} to ${usd(most)}.`;
    return "";
  }

  function show() {
    const cents = centsOf(field.value);
    const wrong = problemOf(field.value, cents);
    const isOffered = !wrong && field.value.trim() !== "";
    // Half up to a whole cent, in integers: what catalog.money.whole_cents does.
    const fee = isOffered ? Math.floor((cents * rate * 2 + 10000) / 20000) : 0;
    outputs.credit.textContent = isOffered ? usd(cents) : "-";
    outputs.fee.textContent = isOffered ? usd(fee) : "-";
    outputs.total.textContent = isOffered ? usd(cents + fee) : "-";
    form.elements.seen_total.value = isOffered ? String(cents + fee) : "";
    problem.textContent = wrong;
    problem.hidden = !wrong;
    hint.hidden = Boolean(wrong);
    field.classList.toggle("is-invalid", Boolean(wrong));
    if (wrong) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
    for (const preset of form.querySelectorAll("[data-credit]")) {
      const isChosen = Number(preset.dataset.credit) * 100 === cents;
      preset.classList.toggle("btn-primary", isChosen);
      preset.classList.toggle("btn-outline-primary", !isChosen);
      if (isChosen) preset.setAttribute("aria-current", "true");
      else preset.removeAttribute("aria-current");
    }
  }

  form.addEventListener("click", (event) => {
    const preset = event.target.closest("[data-credit]");
    if (!preset) return;
    event.preventDefault();
    field.value = preset.dataset.credit;
    show();
  });
  field.addEventListener("input", show);
  // A page from the back-forward cache, or one whose field the browser filled in, shows what the field says.
  window.addEventListener("pageshow", show);
})();
