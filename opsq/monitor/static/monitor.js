// Keeps the page up to date: when the server says that something changed, the page is fetched again and the parts
// marked `data-live` that differ take the place of the old ones. Without this script the page is complete, only still.
"use strict";
(() => {
  const status = document.getElementById("connection");
  const words = status.querySelector(".text");
  let source = null, wanted = false, busy = false, restUntil = 0;

  const show = (kind, text) => { status.className = "status " + kind; words.textContent = text; };

  const localTimes = (root) => {
    for (const each of root.querySelectorAll("time.clock")) {
      const when = new Date(each.dateTime);
      if (!Number.isNaN(when.getTime())) {
        each.title = each.textContent;
        each.textContent = when.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
      }
    }
  };

  const inUse = (part) => part.contains(document.activeElement) && document.activeElement.matches("input, select, summary, button, textarea")
    || part.querySelector("details[open]") || selectionIn(part);
  const selectionIn = (part) => {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && part.contains(selection.anchorNode);
  };

  const swap = (fresh) => {
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (!next || inUse(part)) continue;
      localTimes(next);
      if (next.outerHTML === part.outerHTML) continue;
      const focused = part.contains(document.activeElement) && document.activeElement.getAttribute("href");
      part.replaceWith(document.adoptNode(next));
      if (focused) next.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    }
  };

  const refresh = async () => {
    if (busy || document.hidden) { wanted = true; return; }
    const pause = restUntil - performance.now();
    if (pause > 0) { if (!wanted) { wanted = true; setTimeout(() => { wanted = false; refresh(); }, pause); } return; }
    busy = true; wanted = false;
    const begun = performance.now();
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
      if (answer.ok) swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch { /* the stream tells when the server is away */ }
    // A page that takes long to make is asked for less often.
    restUntil = performance.now() + Math.max(900, 8 * (performance.now() - begun));
    busy = false;
    if (wanted) { wanted = false; refresh(); }
  };

  const open = () => {
    source = new EventSource(document.body.dataset.liveUrl);
    source.addEventListener("open", () => show("live", "live"));
    source.addEventListener("change", () => { show("live", "live"); refresh(); });
    source.addEventListener("error", () => show("lost", source.readyState === EventSource.CLOSED ? "not live" : "reconnecting"));
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { source?.close(); source = null; show("", "paused"); } else if (!source) { open(); refresh(); }
  });
  localTimes(document);
  open();
})();
