"use strict";
// What every page has: a place where scripts leave values, and the choice of light or dark.
window.site = (() => {
  const values = new Map();
  const waiting = new Map();

  function take(name, value) {
    values.set(name, value);
    (waiting.get(name) || []).forEach(({ resolve }) => resolve(value));
    waiting.delete(name);
  }

  // Load a script beside the page once, and give the value that it hands over; a file may not be fetched.
  function load(name, url) {
    if (values.has(name)) return Promise.resolve(values.get(name));
    return new Promise((resolve, reject) => {
      waiting.set(name, [...(waiting.get(name) || []), { resolve, reject }]);
      if (waiting.get(name).length > 1) return;
      const element = document.createElement("script");
      element.src = url;
      element.onload = () => element.remove();
      element.onerror = () => {
        element.remove();
        const failed = waiting.get(name) || [];
        waiting.delete(name);
        failed.forEach((each) => each.reject(new Error(`${url} cannot be loaded`)));
      };
      document.head.append(element);
    });
  }

  function drop(name) {
    values.delete(name);
  }

  const stored = (() => {
    try { return localStorage.getItem("theme"); } catch { return null; }
  })();
  if (stored) document.documentElement.dataset.theme = stored;

  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      const root = document.documentElement;
      const isDark = root.dataset.theme
        ? root.dataset.theme === "dark"
        : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = isDark ? "light" : "dark";
      try { localStorage.setItem("theme", root.dataset.theme); } catch { /* a file may have no storage */ }
    });
  });

  return { take, load, drop };
})();
