"use strict";
(() => {
  const card = document.getElementById("card");
  const most = 10; // members on the card

  function element(name, text, className) {
    const e = document.createElement(name);
    if (text !== undefined) e.textContent = text;
    if (className) e.className = className;
    return e;
  }

  // The numbers of a position, the most probable member first.
  function fill(position) {
    const all = [...position.parentElement.querySelectorAll(":scope > .p")];
    const parts = ["position " + (all.indexOf(position) + 1) + " of " + all.length];
    if (position.dataset.t) parts.push("threshold " + position.dataset.t);
    const rows = [...position.querySelectorAll(".t")].map((t) => {
      const member = t.closest("li");
      const removed = t.querySelector("del") !== null;
      return { t, removed, p: Number(member.style.getPropertyValue("--p")), n: t.nextElementSibling.textContent.trim() };
    });
    rows.sort((a, b) => b.p - a.p);
    const table = element("table");
    for (const row of rows.slice(0, most)) {
      const tr = element("tr", undefined, row.removed ? "x" : "");
      const bar = element("td", undefined, "bar");
      bar.append(element("b"));
      bar.firstChild.style.setProperty("--p", row.p);
      const text = element("td");
      text.append(row.t.cloneNode(true));
      tr.append(bar, text, element("td", row.n), element("td", "token " + row.t.dataset.id));
      table.append(tr);
    }
    card.replaceChildren(element("p", parts.join(" · ")), table);
    if (rows.length > most) card.append(element("p", rows.length - most + " more, less probable"));
  }

  let shown = null;
  function show(position) {
    if (position === shown) return;
    shown = position;
    card.hidden = !position;
    if (!position) return;
    fill(position);
    place();
  }

  // The card stands below its position, or above where there is no room.
  function place() {
    if (!shown) return;
    const at = shown.getBoundingClientRect();
    const left = Math.max(8, Math.min(at.left, innerWidth - card.offsetWidth - 8));
    let top = at.bottom + 6;
    if (top + card.offsetHeight > innerHeight - 8) top = Math.max(8, at.top - card.offsetHeight - 6);
    card.style.left = left + "px";
    card.style.top = top + "px";
  }

  for (const tree of document.querySelectorAll(".tree")) {
    const all = [...tree.querySelectorAll(":scope > .p")];
    all.forEach((p, i) => { p.tabIndex = i ? -1 : 0; });
    const go = (from, to) => {
      if (!to) return;
      from.tabIndex = -1;
      to.tabIndex = 0;
      to.focus();
    };
    const isSet = (p) => p.querySelector(".b") !== null;
    tree.addEventListener("keydown", (e) => {
      const at = all.indexOf(e.target);
      if (at < 0 || e.ctrlKey || e.altKey || e.metaKey) return;
      const next = {
        ArrowRight: () => all[at + 1],
        ArrowLeft: () => all[at - 1],
        ArrowDown: () => all.slice(at + 1).find(isSet),
        ArrowUp: () => all.slice(0, at).reverse().find(isSet),
        Home: () => all[0],
        End: () => all[all.length - 1],
      }[e.key];
      if (e.key === "Escape") show(null);
      if (!next) return;
      e.preventDefault();
      go(e.target, next());
    });
    tree.addEventListener("focusin", (e) => show(e.target.closest(".p")));
    tree.addEventListener("focusout", () => show(null));
    tree.addEventListener("pointerover", (e) => { if (e.pointerType !== "touch") show(e.target.closest(".p")); });
    tree.addEventListener("pointerleave", () => show(document.activeElement.closest(".p")));
    tree.addEventListener("click", (e) => {
      const p = e.target.closest(".p");
      if (p && !e.target.closest("details")) go(all.find((q) => q.tabIndex === 0), p);
    });
  }
  addEventListener("scroll", place, true);
  addEventListener("resize", place);
  for (const help of document.querySelectorAll(".help")) help.hidden = false;
})();
