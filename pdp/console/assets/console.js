// What a page of the console does by itself: times in the reader's zone, time that runs down, and what has changed.
// All of it is a convenience: each page works without this file.
"use strict";
(() => {
  const MINUTE = 60, HOUR = 3600, DAY = 86400;

  // The same words as the server's: the two largest units, whole minutes while there are some.
  const span = (seconds) => {
    let left = seconds >= MINUTE ? Math.floor(seconds / MINUTE) * MINUTE : Math.floor(seconds);
    const parts = [];
    for (const [size, unit] of [[DAY, "d"], [HOUR, "h"], [MINUTE, "min"], [1, "s"]]) {
      const number = Math.floor(left / size);
      left -= number * size;
      if (number) parts.push(`${number} ${unit}`);
    }
    return parts.slice(0, 2).join(" ") || "0 s";
  };

  // The console's clock: that of the browser can be wrong.
  const began = performance.now();
  const server = Number(document.documentElement.dataset.now) || Date.now() / 1000;
  const now = () => server + (performance.now() - began) / 1000;

  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const zoned = (root) => {
    for (const time of root.querySelectorAll("time[datetime]:not([data-zoned])")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.valueOf())) continue;
      time.dataset.zoned = "";
      const sameDay = at.getDate() === at.getUTCDate();
      time.textContent = `${local.format(at)} (${sameDay ? time.textContent.slice(-9) : time.textContent})`;
    }
  };

  const count = () => {
    for (const one of document.querySelectorAll(".counting")) {
      const until = Number(one.dataset.until);
      const text = span(Math.max(0, until - now()));
      if (until && one.textContent !== text) one.textContent = text;
    }
  };

  zoned(document);
  count();
  setInterval(count, 1000);
  if (!("live" in document.body.dataset)) return;

  // --- keys ---------------------------------------------------------------------------------------------------------
  // They only move the focus, and can be switched off: a person may speak to their browser, or miss a key.
  const keys = document.getElementById("keys");
  if (document.getElementById("approve")) {
    const wanted = keys.querySelector("input");
    keys.hidden = false;
    wanted.checked = localStorage.getItem("keys") !== "off";
    wanted.addEventListener("change", () => localStorage.setItem("keys", wanted.checked ? "on" : "off"));
    document.addEventListener("keydown", (event) => {
      if (!wanted.checked || event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.target.matches("input:not([type=checkbox]), textarea, select")) return;
      const button = document.getElementById({ a: "approve", d: "deny" }[event.key] || "");
      if (button) { event.preventDefault(); button.focus(); }
    });
  }

  // --- what has changed -------------------------------------------------------------------------------------------
  const tell = (text) => {
    const status = document.querySelector(".status");
    if (status && status.textContent !== text) status.textContent = text;
  };

  // Rows do not move under the pointer or the focus: what has gone is marked, and what came waits.
  const rows = document.getElementById("rows");
  const busy = () => rows.matches(":hover") || rows.contains(document.activeElement);
  let waiting = null;
  const settle = () => {
    if (!waiting || busy()) return;
    rows.replaceChildren(...waiting.childNodes);
    waiting = null;
    tell("");
  };
  const showRows = (fresh) => {
    const keys = (root) => new Set([...root.querySelectorAll("[data-key]")].map((row) => row.dataset.key));
    const before = keys(rows), after = keys(fresh);
    waiting = document.importNode(fresh, true);
    zoned(waiting);
    if (!busy()) return settle();
    for (const row of rows.querySelectorAll("[data-key]")) row.classList.toggle("gone", !after.has(row.dataset.key));
    const came = [...after].filter((key) => !before.has(key)).length;
    tell(came ? `${came} more: they appear when you leave the list` : "");
  };
  if (rows) {
    rows.addEventListener("pointerleave", () => setTimeout(settle));
    rows.addEventListener("focusout", () => setTimeout(settle));
  }

  // A request that a person is reading is never changed under their eyes.
  const fresh = document.getElementById("fresh");
  const showFresh = (found) => {
    const same = found.dataset.fresh === fresh.dataset.fresh;
    tell(same ? "" : "This has changed since the page was opened. Reload it before you decide.");
  };

  // The page itself, as the server would show it now. Its scripts do not run: it is only parsed.
  let asking = false, again = false;
  const refresh = () => {
    if (!rows && !fresh) return;
    if (asking) { again = true; return; }
    asking = true;
    const request = new XMLHttpRequest();
    request.open("GET", location.href);
    request.responseType = "document";
    request.setRequestHeader("X-Console-Live", "1");
    request.onloadend = () => {
      asking = false;
      const page = request.status === 200 ? request.response : null;
      if (page && rows && page.getElementById("rows")) {
        document.title = page.title;
        showRows(page.getElementById("rows"));
      } else if (page && fresh && page.getElementById("fresh")) {
        showFresh(page.getElementById("fresh"));
      } else if (request.status === 401) {
        tell("You are no longer logged in. Reload the page to log in again.");
      } else if (!request.status) {
        tell("The console cannot be reached, so this page may be old.");
      }
      if (again) { again = false; refresh(); }
    };
    request.send();
  };

  // One stream for all tabs of a browser: the visible tab that has the lock holds it, and tells the others.
  const channel = new BroadcastChannel("pdp-console");
  channel.onmessage = () => { if (!document.hidden) refresh(); };
  let release = null;
  const hold = () => new Promise((done) => {
    const source = new EventSource("/events");
    const end = () => { source.close(); release = null; done(); };
    source.addEventListener("changed", () => { channel.postMessage(""); refresh(); });
    source.addEventListener("over", () => { end(); refresh(); });
    // It comes back by itself after a broken connection, and not after a refusal.
    source.onerror = () => {
      refresh();
      if (source.readyState !== EventSource.CLOSED) return;
      end();
      setTimeout(listen, 15_000);
    };
    release = end;
  });
  let wanted = null;
  const listen = () => {
    if (document.hidden || wanted) return;
    wanted = new AbortController();
    navigator.locks.request("pdp-console", { signal: wanted.signal }, hold).catch(() => {}).finally(() => { wanted = null; });
  };
  const rest = () => {
    if (release) release();
    else if (wanted) wanted.abort();
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return rest();
    refresh();
    setTimeout(listen);
  });
  addEventListener("pagehide", rest);
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    refresh();
    listen();
  });
  if (navigator.locks) listen();
})();
