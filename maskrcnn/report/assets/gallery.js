"use strict";
// The pages of small pictures: what is searched, sorted and shown, all of it kept in the page's address.
(() => {
  const PAGE = 48;
  const element = (id) => document.getElementById(id);
  const each = (selector, act) => document.querySelectorAll(selector).forEach(act);
  const view = {};
  let table, counts, places = [], tiles = new Map(), isDue = false;
  const spareCanvases = [];

  window.addEventListener("DOMContentLoaded", () => {
    window.site.load("index", "gallery/index.js").then((index) => {
      window.site.drop("index");
      table = window.columns.unpack(index);
      begin();
    }, (error) => { element("status").textContent = error.message; });
  });

  function begin() {
    buildCategories();
    window.viewer.begin(table, { open, neighbour, outlines, pictureOf, tellPlace, view: () => view, closed });
    element("tools").addEventListener("submit", (event) => event.preventDefault());
    listen("search", "input", (input) => { view.search = input.value; view.page = 1; });
    listen("score", "input", (input) => { view.step = Math.round(input.value * table.steps); });
    ["only", "sort"].forEach((name) => listen(name, "change", (input) => { view[name] = input.value; view.page = 1; }));
    ["masks", "boxes", "texts"].forEach((name) => listen(name, "change", (input) => { view[name] = input.checked; }));
    element("every-category").addEventListener("click", () => { view.hidden.clear(); refresh(); });
    element("no-category").addEventListener("click", () => {
      table.categories.forEach((_, label) => view.hidden.add(label));
      refresh();
    });
    each(".previous", (button) => button.addEventListener("click", () => turn(-1)));
    each(".next", (button) => button.addEventListener("click", () => turn(1)));
    window.addEventListener("hashchange", readAddress);
    document.addEventListener("keydown", onKey);
    new ResizeObserver(() => tiles.forEach(drawTile)).observe(element("grid"));
    readAddress();
  }

  function listen(id, kind, take) {
    element(id).addEventListener(kind, (event) => { take(event.target); refresh(); });
  }

  function buildCategories() {
    const chips = table.categories.map((name, label) => {
      const chip = make("button", "chip");
      chip.type = "button";
      if (!table.hasTruth) {  // else colours tell right from wrong
        const swatch = make("span", "swatch");
        swatch.style.background = window.marks.colorOf(label);
        chip.append(swatch);
      }
      chip.append(make("span", "category", name), make("span", "faint"));
      chip.addEventListener("click", () => {
        if (!view.hidden.delete(label)) view.hidden.add(label);
        refresh();
      });
      return chip;
    });
    element("category-list").replaceChildren(...chips);
    element("categories").hidden = !chips.length;
    element("categories").open = chips.length > 1 && chips.length <= 12;
  }

  function readAddress() {
    Object.assign(view, window.address.read(table));
    element("search").value = view.search;
    element("score").value = view.step / table.steps;
    element("only").value = view.only;
    element("sort").value = view.sort;
    ["masks", "boxes", "texts"].forEach((name) => { element(name).checked = view[name]; });
    render();
    if (view.image !== null) window.viewer.show(view.image);
    else if (window.viewer.isOpen()) window.viewer.close();
  }

  // What is shown ----------------------------------------------------------------------------------------------------

  function refresh() {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => { isDue = false; render(); window.viewer.redraw(); });
  }

  function render() {
    counts = window.columns.count(table, view);
    places = window.columns.select(table, counts, view);
    view.page = Math.max(1, Math.min(view.page, numPages()));
    window.address.write(view, table);
    element("score-shown").textContent = (view.step / table.steps).toFixed(2);
    const told = (count, thing) => `${count.toLocaleString("en")} ${thing}${count === 1 ? "" : "s"}`;
    const total = places.reduce((sum, place) => sum + counts.shown[place], 0);
    element("status").textContent = `${told(total, "detection")} in ${told(places.length, "image")}`;
    each(".page-shown", (shown) => { shown.textContent = `page ${view.page} of ${numPages()}`; });
    each(".previous", (button) => { button.disabled = view.page === 1; });
    each(".next", (button) => { button.disabled = view.page === numPages(); });
    renderCategories();
    renderTiles();
  }

  function renderCategories() {
    const chips = element("category-list").children;
    for (let label = 0; label < chips.length; label++) {
      chips[label].setAttribute("aria-pressed", String(!view.hidden.has(label)));
      chips[label].lastChild.textContent = counts.byCategory[label].toLocaleString("en");
    }
    element("categories-shown").textContent =
      `(${table.categories.length - view.hidden.size} of ${table.categories.length})`;
  }

  const numPages = () => Math.max(1, Math.ceil(places.length / PAGE));
  const onPage = () => places.slice((view.page - 1) * PAGE, view.page * PAGE);

  function renderTiles() {
    const wanted = onPage();
    const shown = [...tiles.keys()];
    if (wanted.length !== shown.length || wanted.some((place, at) => place !== shown[at])) {
      const kept = tiles;
      kept.forEach((tile, place) => { if (!wanted.includes(place)) release(tile); });
      tiles = new Map(wanted.map((place) => [place, kept.get(place) || buildTile(place)]));
      element("grid").replaceChildren(...[...tiles.values()].map((tile) => tile.item));
    }
    [...tiles.values()].forEach((tile, at) => { tile.button.tabIndex = at ? -1 : 0; });
    tiles.forEach((tile, place) => {
      tile.counts.textContent = tellCounts(place);
      tile.button.dataset.shown = counts.shown[place];
      drawTile(tile, place);
    });
  }

  function tellCounts(place) {
    if (table.states[place] === 1) return "failed";
    const parts = [`${counts.shown[place]} found`];
    if (counts.wrong[place]) parts.push(`${counts.wrong[place]} false`);
    if (counts.missed[place]) parts.push(`${counts.missed[place]} missed`);
    return parts.join(" · ");
  }

  function make(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text) made.textContent = text;
    return made;
  }

  function buildTile(place) {
    const tile = { item: make("li"), button: make("button", "tile"), counts: make("span", "counts"), outlines: null };
    const name = table.names[place];
    const photo = make("span", "photo");
    tile.button.type = "button";
    tile.button.dataset.place = place;
    tile.button.title = table.prefix + name;
    if (table.states[place] === 0) {
      const image = make("img");
      image.alt = "";
      image.loading = "lazy";
      image.decoding = "async";
      image.src = stemOf(place) + "-small.jpg";
      tile.image = image;
      photo.append(image);
    } else {
      photo.append(make("span", "reason", table.reasons[place]));
    }
    if (table.states[place] !== 1) {
      tile.canvas = spareCanvases.pop() || make("canvas");
      window.marks.clear(tile.canvas);
      photo.append(tile.canvas);
      load(place).then((found) => {
        if (tiles.get(place) !== tile) return;
        tile.outlines = found;
        drawTile(tile, place);
      }, () => { tile.button.dataset.drawn = "never"; });
    }
    tile.button.append(photo, make("span", "name", name), tile.counts);
    tile.button.addEventListener("click", () => open(place));
    tile.item.append(tile.button);
    return tile;
  }

  // Canvases are used again, since a browser keeps the memory of those that are thrown away for long.
  function release(tile) {
    tile.outlines = null;
    if (tile.canvas) spareCanvases.push(tile.canvas);
    if (tile.image) tile.image.removeAttribute("src");
  }

  function drawTile(tile, place) {
    if (!tile.outlines || !tile.canvas) return;
    const shapes = window.marks.list(table, place, tile.outlines, view);
    window.marks.drawOnCanvas(tile.canvas, table.size(place), tile.outlines, shapes, view);
    tile.button.dataset.drawn = shapes.length;
  }

  const digits = (number, count) => String(number).padStart(count, "0");
  const stemOf = (place) =>
    `gallery/${table.folder}-${digits(Math.floor(place / 1000), 3)}/${digits(place, 6)}`;
  const pictureOf = (place) => stemOf(place) + ".jpg";

  function load(place) {
    const name = `image-${place}`;
    return window.site.load(name, stemOf(place) + ".js").then((found) => { window.site.drop(name); return found; });
  }

  function outlines(place) {
    const tile = tiles.get(place);
    return tile && tile.outlines ? Promise.resolve(tile.outlines) : load(place);
  }

  // Going about ------------------------------------------------------------------------------------------------------

  function turn(step, at = 0) {
    const page = view.page + step;
    if (page < 1 || page > numPages()) return;
    view.page = page;
    render();
    focusTile(at);
  }

  function focusTile(at) {
    const list = [...tiles.values()];
    const tile = list[Math.min(at, list.length - 1)];
    if (!tile) return;
    list.forEach((other) => { other.button.tabIndex = other === tile ? 0 : -1; });
    tile.button.focus();
  }

  function open(place) {
    view.image = place;
    const at = places.indexOf(place);
    const page = Math.floor(at / PAGE) + 1;
    if (at >= 0 && page !== view.page) {
      view.page = page;
      render();
    }
    window.address.write(view, table);
    window.viewer.show(place);
  }

  function closed(place) {
    view.image = null;
    window.address.write(view, table);
    const at = [...tiles.keys()].indexOf(place);
    if (at >= 0) focusTile(at);
  }

  function neighbour(place, step) {
    const at = places.indexOf(place) + step;
    return at >= 0 && at < places.length ? places[at] : null;
  }

  function tellPlace(place) {
    const at = places.indexOf(place);
    return at < 0 ? "" : `${(at + 1).toLocaleString("en")} of ${places.length.toLocaleString("en")}`;
  }

  function numColumns() {
    const tops = [...tiles.values()].map((tile) => tile.item.offsetTop);
    return Math.max(1, tops.filter((top) => top === tops[0]).length);
  }

  function onKey(event) {
    if (window.viewer.isOpen() || event.altKey || event.ctrlKey || event.metaKey) return;
    const target = event.target;
    if (target.matches("input, select, textarea")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    const columns = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -numColumns(), ArrowDown: numColumns() };
    const focused = target.closest(".tile");
    const at = focused ? [...tiles.keys()].indexOf(Number(focused.dataset.place)) : -1;
    if (event.key === "/") element("search").focus();
    else if (event.key === "PageDown") turn(1);
    else if (event.key === "PageUp") turn(-1);
    else if (focused && event.key === "Home") focusTile(0);
    else if (focused && event.key === "End") focusTile(PAGE);
    else if (event.key in columns && (focused || !event.key.match(/Up|Down/))) moveFocus(at, columns[event.key]);
    else return;
    event.preventDefault();
  }

  // Move among the tiles; beyond the first and the last lies another page.
  function moveFocus(at, step) {
    const next = at < 0 ? 0 : at + step;
    if (next >= 0 && next < tiles.size) focusTile(next);
    else if (step > 0) turn(1);
    else turn(-1, PAGE);
  }
})();
